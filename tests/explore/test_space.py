"""A Space that is exported and pushed: its files, what the Hub gets, and what cannot be one."""

import ast
import importlib.metadata
from pathlib import Path

import pytest
from huggingface_hub import RepoCard
from packaging.requirements import Requirement

from tests.scripts import script

explore = script("explore")


@pytest.fixture(scope="module")
def space(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (runs / "line" / "checkpoint-3").mkdir()
    (runs / "line" / "checkpoint-3" / "optimizer.pt").write_bytes(b"large")
    (runs / "line" / "README.md").write_text("---\nlicense: mit\n---\n")
    folder = tmp_path_factory.mktemp("spaces") / "space"
    words = ("--export_space", folder, "--positions", 5, "--max_eval_samples", 64, "--color_jitter", 0.4, 0.4, 0.4)
    assert explore([runs / "line", *words]) == 0
    return folder


def test_a_space_has_what_the_hub_needs(space: Path) -> None:
    card = RepoCard.load(space / "README.md").data
    assert (card.sdk, card.app_file, card.license) == ("gradio", "app.py", "mit")  # the model's, which comes along
    assert card.sdk_version == importlib.metadata.version("gradio")
    names = {Requirement(line).name for line in (space / "requirements.txt").read_text().split("\n") if line}
    assert {"torch", "timm", "transformers"} <= names and not names & {"pytest", "gradio", "optuna"}
    call = ast.parse((space / "app.py").read_text()).body[-1].value.args[0].args[0]
    assert ast.literal_eval(call) == [
        "model/line", "--dataset=digits", "--max_eval_samples=64", "--color_jitter", "0.4", "0.4", "0.4", "--positions=5"
    ]  # fmt: skip
    assert {path.name for path in (space / "model" / "line").iterdir()} == {
        "config.json", "model.safetensors", "subspace.safetensors", "subspace_config.json", "training_args.json"
    }  # fmt: skip
    assert (space / "hf_geo" / "explore" / "page.css").is_file() and not list(space.rglob("__pycache__"))


def test_push_makes_it_a_space(space: Path, online, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_TOKEN", online.write_token)
    assert script("push")([space, "ada/explorer"]) == 0
    assert f"{online.endpoint}/spaces/ada/explorer" in capsys.readouterr().out
    assert online.store.find("model", "ada/explorer") is None
    assert online.store.find("space", "ada/explorer").head.title == "Upload the Space"
    pushed = set(online.store.find("space", "ada/explorer").head.files)
    here = {path.relative_to(space).as_posix() for path in space.rglob("*") if path.is_file()}
    assert here <= pushed
    (created,) = [request.json() for request in online.requests if request.path == "/api/repos/create"]
    assert (created["type"], created["sdk"]) == ("space", "gradio")


def test_a_page_that_cannot_open_is_not_exported(runs: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        explore([runs / "simplex", "--export_space", tmp_path / "space", "--positions", 3])
    assert "takes 4 positions or more, not 3" in capsys.readouterr().err
    assert not (tmp_path / "space").exists()
