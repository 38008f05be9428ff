"""What a run pushes while it trains: in its way it never is, and whatever fails, what arrives is whole."""

import json
import logging
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from hf_geo.checkpoints.store import fault
from hf_geo.hub.background import BackgroundPush
from hf_geo.hub.pushing import PushEachSave
from tests.hub.runs import write_run
from tests.local_hub import LocalHub, Response
from tests.scripts import TRAIN

QUICK = ("--dataset", "digits", "--model", "test_resnet", "--optim", "fromage", "--disable_tqdm", "true")
TO_HUB = ("--push_to_hub", "true", "--hub_model_id", "ada/digits", "--save_steps", "2", "--max_steps", "4")


@pytest.fixture
def online(hub, monkeypatch) -> LocalHub:
    """The local Hub, for clients of this process too."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return hub


def folders(tmp_path: Path, *names: str) -> list[Path]:
    for name in names:
        (tmp_path / name / "network").mkdir(parents=True)
        (tmp_path / name / "network" / "model.safetensors").write_bytes(name.encode() * 100)
    return [tmp_path / name for name in names]


def titles(hub: LocalHub) -> list[str]:
    return [commit.title for commit in hub.store.find("model", "ada/digits").history]


def test_a_push_runs_beside_and_one_after_the_other(online, tmp_path) -> None:
    one, two = folders(tmp_path, "one", "two")
    gate = threading.Event()
    online.fault = lambda request: gate.wait(30) and None
    pusher = BackgroundPush("ada/digits", token=online.write_token)
    assert not pusher.busy
    pusher.start(one, {"network": None}, "One")
    pusher.start(two, {"network": "last-checkpoint"}, "Two")
    assert pusher.busy and one.is_dir() and two.is_dir()
    gate.set()
    pusher.wait()
    assert not pusher.busy and not one.exists() and not two.exists()
    assert titles(online) == ["initial commit", "One", "Two"]
    files = online.store.find("model", "ada/digits").head.files
    assert files["last-checkpoint/model.safetensors"].path.read_bytes() == b"two" * 100


def test_a_refusal_ends_pushing_and_an_outage_does_not(online, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("hf_geo.hub.retries.WAITS", ())
    one, two, three = folders(tmp_path, "one", "two", "three")
    pusher = BackgroundPush("ada/digits", token=online.write_token)
    online.fault = lambda request: Response.of({"error": "Down"}, 503) if "commit" in request.path else None
    pusher.start(one, {"network": None}, "One")
    pusher.wait()
    assert (
        "'One' did not reach ada/digits: the Hub answered with error 503 (Down); training goes on, the next"
        in caplog.text
    )
    online.fault = lambda request: Response.of({"error": "No"}, 403)
    pusher.start(two, {"network": None}, "Two")
    pusher.wait()
    assert (
        "the token may not write to ada/digits" in caplog.text
        and "nothing more is pushed before its end" in caplog.text
    )
    made = len(online.requests)
    pusher.start(three, {"network": None}, "Three")
    pusher.wait()
    assert len(online.requests) == made and not three.exists()
    assert online.write_token not in caplog.text


def test_a_token_in_a_file_is_not_pushed(online, tmp_path, caplog) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text(online.write_token)
    pusher = BackgroundPush("ada/digits", token=online.write_token)
    with caplog.at_level(logging.WARNING):
        pusher.start(tmp_path, {"run": None}, "One")
        pusher.wait()
    assert "holds a Hub access token" in caplog.text and not online.requests


def test_an_export_that_fails_ends_no_training(tmp_path, caplog) -> None:
    (tmp_path / "checkpoint-2").mkdir()
    args = SimpleNamespace(output_dir=tmp_path, hub_always_push=False, world_size=1, hub_strategy="every_save")
    state = SimpleNamespace(global_step=2, is_world_process_zero=True)
    PushEachSave(SimpleNamespace(busy=False), lambda folder: 1 / 0).on_save(args, state, None)
    assert caplog.messages == ["Update 2 is not pushed, because division by zero; training goes on."]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def train(hub: LocalHub, folder: Path, *words: str, launcher: tuple[str, ...] = (), **options):
    command = [*launcher, TRAIN, *QUICK, *TO_HUB, *words, "--output_dir", folder]
    return hub.run(command, **({"token": hub.write_token} | options))


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_each_save_is_pushed_and_opens_and_the_checkpoint_resumes(hub, tmp_path) -> None:
    """The token is given as an option: it must be nowhere afterwards."""
    words = ("--hub_token", hub.write_token, "--hub_strategy", "checkpoint", "--hub_always_push", "true")
    done = train(hub, tmp_path / "run", "--subspace", "line", *words, token=None)
    assert titles(hub)[1:] == [
        *(f"Training in progress, step {step}" for step in (2, 2, 4, 4)),
        "Upload the trained model",
    ]
    history = hub.store.find("model", "ada/digits").history
    first = {name: file.path.read_bytes() for name, file in history[2].files.items()}
    for name in ("model.safetensors", "config.json", "subspace.safetensors", "subspace_config.json"):
        assert name in first, name
    opened = tmp_path / "opened"
    for name, content in first.items():
        (opened / name).parent.mkdir(parents=True, exist_ok=True)
        (opened / name).write_bytes(content)
    assert fault(opened / "last-checkpoint") is None
    state = json.loads((opened / "last-checkpoint" / "trainer_state.json").read_text())
    assert state["global_step"] == 2
    code = """
import sys, timm
from transformers import AutoModelForImageClassification
AutoModelForImageClassification.from_pretrained(sys.argv[1])
timm.create_model("local-dir:" + sys.argv[1], pretrained=True)
"""
    hub.run(["-c", code, opened])
    by_id = """
import sys, torch
from hf_geo import Subspace
from hf_geo.models import build_image_classifier
def points(place):
    subspace = Subspace.load(place, build_image_classifier(sys.argv[1], num_classes=10))
    return [subspace.point_state_dict(i) for i in range(2)]
for here, there in zip(points(sys.argv[1]), points("ada/digits")):
    assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)
"""
    hub.run(["-c", by_id, tmp_path / "run"], token=hub.read_token)
    assert not list((tmp_path / "run").glob("_*"))
    pushed = b"".join(file.path.read_bytes() for file in hub.store.find("model", "ada/digits").head.files.values())
    seen = (done.stdout + done.stderr).encode() + everything(tmp_path / "run") + pushed
    assert hub.write_token.encode() not in seen


def test_a_hub_that_fails_stops_no_training_and_the_command_pushes_all_of_it(hub, tmp_path) -> None:
    hub.fault = lambda request: Response.of({"error": "No"}, 403) if request.method != "GET" else None
    done = train(hub, tmp_path / "run", "--hub_strategy", "checkpoint", check=False)
    assert done.returncode == 2 and (tmp_path / "run" / "model.safetensors").is_file(), done.stderr
    assert "'Training in progress, step 2' did not reach ada/digits" in done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert sentence.endswith(f"`python scripts/push.py {tmp_path / 'run'} ada/digits --checkpoints last`.")
    assert "Traceback" not in done.stderr and hub.write_token not in done.stdout + done.stderr
    hub.fault = None
    command = [TRAIN.with_name("push.py"), tmp_path / "run", "ada/digits", "--checkpoints", "last"]
    hub.run(command, token=hub.write_token)
    files = hub.store.find("model", "ada/digits").head.files
    assert {"README.md", "model.safetensors", "last-checkpoint/optimizer.pt"} <= set(files)


@pytest.mark.slow
def test_pushing_at_the_end_pushes_once(hub, tmp_path) -> None:
    train(hub, tmp_path / "run", "--hub_strategy", "end")
    assert titles(hub)[1:] == ["Upload the trained model"]


@pytest.mark.slow
def test_of_two_processes_one_pushes_and_the_checkpoint_has_the_files_of_both(hub, tmp_path) -> None:
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=0")
    words = ("--hub_strategy", "checkpoint", "--hub_always_push", "true")
    train(hub, tmp_path / "run", *words, launcher=launcher, ACCELERATE_USE_CPU="true", OMP_NUM_THREADS="1")
    assert titles(hub)[1:] == [
        *(f"Training in progress, step {step}" for step in (2, 2, 4, 4)),
        "Upload the trained model",
    ]
    files = hub.store.find("model", "ada/digits").head.files
    for name, file in files.items():
        (tmp_path / "pushed" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pushed" / name).write_bytes(file.path.read_bytes())
    assert {f"last-checkpoint/rng_state_{rank}.pth" for rank in range(2)} <= set(files)
    assert fault(tmp_path / "pushed" / "last-checkpoint") is None
    assert not list((tmp_path / "run").glob("_*"))
