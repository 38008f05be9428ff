"""A data set or model that the Hub does not give is one clear sentence, whatever the reason; one that it gives is read."""

import json

import pytest

CODE = """
import json
from hf_geo.data.sources import open_source
from hf_geo.models.sources import find_model

def attempt(action, name):
    try:
        found = action(name)
    except ValueError as error:
        return str(error)
    return sorted(found.splits) if hasattr(found, "splits") else found.kind

names = ["uoft-cs/cifar10", "uoft-cs/nothing", "ada/secret"]
print(json.dumps([
    {name: attempt(lambda name: open_source(name, streaming=True), name) for name in names},
    {name: attempt(find_model, name) for name in ["ada/model", "hf-hub:uoft-cs/nothing", "ada/secret"]},
]))
"""


@pytest.fixture
def filled(hub):
    hub.store.create("dataset", "ada/secret", private=True)
    hub.store.create("model", "ada/secret", private=True)
    hub.store.create("model", "ada/model", private=False)
    return hub


def read(hub, **environment: str) -> tuple[dict, dict]:
    data, models = json.loads(hub.run(CODE, **environment).stdout.splitlines()[-1])
    assert not [message for message in (*data.values(), *models.values()) if "\n" in message]
    return data, models


def test_what_is_missing_or_private_is_named(filled):
    data, models = read(filled)
    assert data.pop("uoft-cs/cifar10") == ["test", "train"]
    for name, message in data.items():
        assert message.startswith(f"The Hub gives no data set {name!r}: ")
    assert models.pop("ada/model") == "The Hub's 'ada/model' holds no model: there is no config.json in it."
    for name, message in models.items():
        assert message.startswith(f"The Hub gives no model {name.removeprefix('hf-hub:')!r}: ")


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"HF_HUB_OFFLINE": "1"}, id="offline"),
        # The client tries each name for half a minute before it gives up.
        pytest.param({"HF_ENDPOINT": "http://127.0.0.1:9"}, id="unreachable", marks=pytest.mark.slow),
    ],
)
def test_without_the_hub_the_sentence_says_so(filled, environment):
    data, models = read(filled, **environment)
    for name, message in (*data.items(), *models.items()):
        assert message.startswith(f"{name.removeprefix('hf-hub:')!r} is no folder here, and the Hub cannot be reached")
