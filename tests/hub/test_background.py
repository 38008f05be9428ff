"""What a run pushes while it trains: in its way it never is, and whatever fails, what arrives is whole."""

import json
import logging
import shlex
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from transformers import AutoModelForImageClassification

from hf_geo import Subspace
from hf_geo.checkpoints.store import fault
from hf_geo.hub.background import BackgroundPush, PushEachSave
from hf_geo.models import build_image_classifier
from tests.hub.runs import write_run
from tests.local_hub import LocalHub, Response
from tests.scripts import TRAIN, script

QUICK = ("--dataset", "digits", "--model", "test_resnet", "--optim", "fromage", "--disable_tqdm", "true")
TO_HUB = ("--push_to_hub", "true", "--hub_model_id", "ada/digits", "--save_steps", "2", "--max_steps", "4")


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
    assert not pusher.is_busy
    pusher.start(one, {"network": None}, "One")
    pusher.start(two, {"network": "last-checkpoint"}, "Two")
    assert pusher.is_busy and one.is_dir() and two.is_dir()
    gate.set()
    pusher.wait()
    assert not pusher.is_busy and not one.exists() and not two.exists()
    assert titles(online) == ["initial commit", "One", "Two"]
    files = online.store.find("model", "ada/digits").head.files
    assert files["last-checkpoint/model.safetensors"].path.read_bytes() == b"two" * 100


def test_a_refusal_ends_pushing_and_an_outage_does_not(online, tmp_path, caplog) -> None:
    one, two, three = folders(tmp_path, "one", "two", "three")
    pusher = BackgroundPush("ada/digits", token=online.write_token)
    online.fault = lambda request: Response.of({"error": "Down"}, 503) if "commit" in request.path else None
    pusher.start(one, {"network": None}, "One")
    pusher.wait()
    answered = "the Hub answered with error 503 (Down)"
    assert f"'One' did not reach ada/digits: {answered}; training goes on, the next" in caplog.text
    online.fault = lambda request: Response.of({"error": "No"}, 403)
    pusher.start(two, {"network": None}, "Two")
    pusher.wait()
    assert "the token may not write to ada/digits" in caplog.text
    assert "nothing more is pushed before its end" in caplog.text
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
    before = torch.get_rng_state()
    PushEachSave(SimpleNamespace(is_busy=False), lambda folder: torch.rand(1).item() / 0).on_save(args, state, None)
    assert torch.equal(torch.get_rng_state(), before)  # a run that pushes trains like one that does not
    assert caplog.messages == ["Update 2 is not pushed, because float division by zero; training goes on."]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def train(folder: Path, *words: str) -> int:
    return script("train")([*QUICK, *TO_HUB, *words, "--output_dir", folder])


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def download(hub: LocalHub, commit: int, folder: Path) -> Path:
    """Writes the files of a commit."""
    for name, file in hub.store.find("model", "ada/digits").history[commit].files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(file.path.read_bytes())
    return folder


def points(place: str | Path, folder: Path) -> list[dict[str, torch.Tensor]]:
    """The ends of a line that is loaded from a folder or the Hub into the architecture of a folder."""
    subspace = Subspace.load(place, build_image_classifier(str(folder), num_classes=10))
    return [subspace.point_state_dict(i) for i in range(2)]


AT_EACH_SAVE = [*(f"Training in progress, step {step}" for step in (2, 2, 4, 4)), "Upload the trained model"]


def test_each_save_is_pushed_and_opens_and_the_checkpoint_resumes(online, tmp_path, monkeypatch, capfd) -> None:
    """The token is given as an option: it must be nowhere afterwards."""
    run, token = tmp_path / "run", online.write_token
    words = ("--hub_token", token, "--hub_strategy", "checkpoint", "--hub_always_push", "true")
    assert train(run, "--subspace", "line", *words) == 0
    assert titles(online)[1:] == AT_EACH_SAVE
    opened = download(online, 2, tmp_path / "opened")
    assert {"model.safetensors", "config.json", "subspace.safetensors"} <= {path.name for path in opened.iterdir()}
    assert fault(opened / "last-checkpoint") is None
    state = json.loads((opened / "last-checkpoint" / "trainer_state.json").read_text())
    assert state["global_step"] == 2
    AutoModelForImageClassification.from_pretrained(opened)
    timm.create_model(f"local-dir:{opened}", pretrained=True)
    assert not list(run.glob("_*"))
    pushed = everything(download(online, -1, tmp_path / "last"))
    assert token.encode() not in "".join(capfd.readouterr()).encode() + everything(run) + pushed

    monkeypatch.setenv("HF_TOKEN", online.read_token)
    for here, there in zip(points(run, run), points("ada/digits", run), strict=True):
        assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


def test_a_hub_that_fails_stops_no_training_and_the_command_pushes_all_of_it(
    online, tmp_path, monkeypatch, caplog, capfd
) -> None:
    run = tmp_path / "run"
    monkeypatch.setenv("HF_TOKEN", online.write_token)
    online.fault = lambda request: Response.of({"error": "No"}, 403) if request.method != "GET" else None
    with pytest.raises(SystemExit) as stop:
        train(run, "--hub_strategy", "checkpoint")
    assert stop.value.code == 2 and (run / "model.safetensors").is_file()
    assert "'Training in progress, step 2' did not reach ada/digits" in caplog.text
    printed = capfd.readouterr()
    sentence = printed.err.splitlines()[-1]
    assert sentence.endswith(f"`hf-geo push {run} ada/digits --checkpoints last`.")
    assert online.write_token not in printed.out + printed.err + caplog.text
    online.fault = None
    assert script("push")(shlex.split(sentence.split("`")[-2])[2:]) == 0
    files = online.store.find("model", "ada/digits").head.files
    assert {"README.md", "model.safetensors", "last-checkpoint/optimizer.pt"} <= set(files)


@pytest.mark.slow
def test_pushing_at_the_end_pushes_once(online, tmp_path) -> None:
    assert train(tmp_path / "run", "--hub_token", online.write_token, "--hub_strategy", "end") == 0
    assert titles(online)[1:] == ["Upload the trained model"]


@pytest.mark.slow
def test_of_two_processes_one_pushes_and_the_checkpoint_has_the_files_of_both(hub, tmp_path) -> None:
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=0")
    words = (*QUICK, *TO_HUB, "--hub_strategy=checkpoint", "--hub_always_push=true", "--output_dir", tmp_path / "run")
    hub.run([*launcher, TRAIN, *words], token=hub.write_token, ACCELERATE_USE_CPU="true")
    assert titles(hub)[1:] == AT_EACH_SAVE
    pushed = download(hub, -1, tmp_path / "pushed")
    assert len(list(pushed.glob("last-checkpoint/rng_state_?.pth"))) == 2
    assert fault(pushed / "last-checkpoint") is None
    assert not list((tmp_path / "run").glob("_*"))
