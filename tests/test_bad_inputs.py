"""Each row of the table ends its script with status 2 and one sentence that names the mistake and a remedy, changing nothing."""

import shutil
from pathlib import Path

import pytest
import torch

from hf_geo.subspaces import SubspaceConfig
from tests.bad_inputs import ROWS
from tests.evaluation.test_script import make_run
from tests.hub.runs import fingerprint
from tests.paths import REPOSITORY
from tests.scripts import script
from tests.training.launching import launch
from tests.wrong_calls import GOOD, Row, interrupted_run

SCRIPTS = ("train", "evaluate", "merge", "inspect_model", "push", "benchmark", "explore")


@pytest.fixture(scope="module")
def scripts() -> dict:
    return {name: script(name) for name in SCRIPTS}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, scripts) -> Path:
    """What rows change copies of: "line", a subspace as training leaves it, and "run", which stopped after one step."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("folders")
    settings = {"dataset": "digits", "max_train_samples": 32, "max_eval_samples": 16}
    make_run(folder / "line", SubspaceConfig("line", beta=0.0), settings)
    interrupted_run(scripts["train"], folder / "run")
    return folder


def prepare(row: Row, folder: Path, folders: Path) -> list[str]:
    for name in row.needs:
        shutil.copytree(folders / name, folder / name)
    return row.words(folder)


def check_sentence(row: Row, error: str) -> None:
    last = error.strip().splitlines()[-1]
    assert "Traceback" not in error
    assert last.partition(":")[0].split()[0] == f"{row.script}.py" and ": error: " in last
    assert row.names in last, last
    assert row.advises in last, last


@pytest.mark.parametrize("name", ROWS)
def test_one_sentence_and_nothing_changed(name: str, scripts, folders, tmp_path, capfd, monkeypatch) -> None:
    row = ROWS[name]
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for variable, value in row.environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    words = prepare(row, tmp_path, folders)
    before = fingerprint(tmp_path)
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        scripts[row.script](words)
    assert stop.value.code == 2
    check_sentence(row, capfd.readouterr().err)
    assert fingerprint(tmp_path) == before


def test_the_table_is_long_enough_and_its_good_calls_are_good(scripts, folders, tmp_path, monkeypatch, capsys) -> None:
    assert len(ROWS) >= 120 and {row.script for row in ROWS.values()} == set(SCRIPTS)
    shutil.copytree(folders / "line", tmp_path / "line")
    shutil.copytree(folders / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    resumed = {"output_dir": "run", "resume_from_checkpoint": "run/checkpoint-1", "max_steps": 2}
    for name, more in (("train", {}), ("train", resumed), ("evaluate", {}), ("inspect_model", {})):
        assert scripts[name]([f"--{option}={value}" for option, value in {**GOOD[name], **more}.items()]) == 0


# Rows that processes of their own run too.
REAL = [
    "pushing to a bad name",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("checkpoint with code", "subspace cut short")),
]


@pytest.mark.parametrize("name", REAL)
def test_a_real_process_says_the_same(name: str, folders, tmp_path, monkeypatch) -> None:
    row = ROWS[name]
    monkeypatch.chdir(tmp_path)
    words = prepare(row, tmp_path, folders)
    before = fingerprint(tmp_path)
    done = launch(REPOSITORY / "scripts" / f"{row.script}.py", *words, **row.environment)
    assert done.returncode == 2
    check_sentence(row, done.stderr)
    assert fingerprint(tmp_path) == before


@pytest.mark.slow
def test_of_several_processes_one_says_it(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = ROWS["setting out of range"]
    done = launch(REPOSITORY / "scripts" / "train.py", *row.words(tmp_path), processes=2)
    assert done.returncode != 0 and done.stderr.count("train.py: error: ") == 1
    (line,) = [line for line in done.stderr.splitlines() if "train.py: error: " in line]
    assert row.names in line and row.advises in line
    assert not any(tmp_path.iterdir())


def test_a_home_of_the_hub_that_cannot_be() -> None:
    environment = {"HF_HOME": "/dev/null/home", "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = launch("-c", "from hf_geo.models.sources import find_model; find_model('gone/gone')", **environment)
    assert done.stderr.strip().splitlines()[-1].startswith("ValueError: The Hub gives no model 'gone/gone': ")
