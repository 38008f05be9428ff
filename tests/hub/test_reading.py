"""A data set or model that the Hub does not give is one clear sentence, whatever the reason; one that it gives is read."""

import json

import pytest

from hf_geo.data.sources import open_source
from hf_geo.models.sources import find_model

CODE = """
import json, sys
from hf_geo.data.sources import open_source
from hf_geo.models.sources import find_model

def attempt(action, name):
    try:
        found = action(name)
    except ValueError as error:
        return str(error)
    return sorted(found.splits) if hasattr(found, "splits") else found.kind

data, models = map(json.loads, sys.argv[1:])
print(json.dumps([
    {name: attempt(lambda name: open_source(name, streaming=True), name) for name in data},
    {name: attempt(find_model, name) for name in models},
]))
"""


@pytest.fixture
def filled(hub):
    hub.store.create("dataset", "ada/secret", private=True)
    hub.store.create("model", "ada/secret", private=True)
    hub.store.create("model", "ada/model", private=False)
    return hub


def read(hub, data: list[str], models: list[str], **environment: str) -> tuple[dict, dict]:
    """What reading each data set and each model ends in: an error's message, or what was found."""
    done = hub.run(["-c", CODE, json.dumps(data), json.dumps(models)], **environment)
    ends = json.loads(done.stdout.splitlines()[-1])
    assert not [message for end in ends for message in end.values() if "\n" in message]
    return ends


def test_what_is_missing_or_private_is_named(filled):
    named = ["uoft-cs/cifar10", "uoft-cs/nothing", "ada/secret"]
    data, models = read(filled, named, ["ada/model", "hf-hub:uoft-cs/nothing", "ada/secret"])
    assert data.pop("uoft-cs/cifar10") == ["test", "train"]
    for name, message in data.items():
        assert message.startswith(f"The Hub gives no data set {name!r}: ")
    assert models.pop("ada/model") == "The Hub's 'ada/model' holds no model: there is no config.json in it."
    for name, message in models.items():
        assert message.startswith(f"The Hub gives no model {name.removeprefix('hf-hub:')!r}: ")


def check_unreachable(ends: dict[str, str]) -> None:
    for name, message in ends.items():
        assert message.startswith(f"{name.removeprefix('hf-hub:')!r} is no folder here, and the Hub cannot be reached")


def test_offline_the_sentence_says_so() -> None:
    """Tests are offline."""
    for action, name in ((open_source, "uoft-cs/cifar10"), (find_model, "hf-hub:ada/model")):
        with pytest.raises(ValueError, match="cannot be reached") as raised:
            action(name)
        check_unreachable({name: str(raised.value)})


@pytest.mark.slow
def test_without_a_hub_the_sentence_says_so(filled):
    """The client tries each name for half a minute before it gives up."""
    data, models = read(filled, ["uoft-cs/cifar10"], ["hf-hub:ada/model"], HF_ENDPOINT="http://127.0.0.1:9")
    check_unreachable(data | models)
