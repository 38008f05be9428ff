"""Data sets made to do harm: their cards and archives reach nothing outside of their folder, and no code of theirs runs."""

import contextlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import datasets
import pytest

from hf_geo.data import DataArguments, load_image_data
from tests.scripts import script
from tests.test_hostile import EXECUTED, refusal
from tests.wrong_calls import CLASSES, IMAGES, PNG, table


@pytest.fixture(scope="module")
def train():
    return script("train")


CARD = "---\nconfigs:\n- config_name: default\n  data_files: {}\n---\n"


@pytest.mark.parametrize("elsewhere", ("../secret/*", "SECRET/*", "x/../../secret/*"))
def test_a_card_that_names_files_elsewhere(elsewhere: str, train, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    table(IMAGES)(tmp_path)
    (tmp_path / "data").rename("secret")
    (tmp_path / "data" / "x").mkdir(parents=True)
    named = elsewhere.replace("SECRET", str(tmp_path / "secret"))
    (tmp_path / "data" / "README.md").write_text(CARD.format(json.dumps(named)))
    assert "its card names a file outside of it" in refusal(train, capfd, dataset="data")


def test_a_card_or_a_script_with_python_in_it(train, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    table(IMAGES)(tmp_path)
    card = tmp_path / "data" / "README.md"
    card.write_text(CARD.format(f"!!python/object/apply:builtins.open [{EXECUTED}, w]"))
    refusal(train, capfd, dataset="data")
    card.unlink()
    (tmp_path / "data" / "data.py").write_text(f"open({EXECUTED!r}, 'w')\n")
    refusal(train, capfd, dataset="data")


def write_zip(path: Path, escaping: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**CLASSES, escaping: PNG}.items():
            archive.writestr(name, content)


def write_tar(path: Path, escaping: str) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in {**CLASSES, escaping: PNG}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("kind", "write", "escaping"),
    [
        ("zip", write_zip, "../../../../escaped.png"),
        ("tar.gz", write_tar, "../../../../escaped.png"),
        ("tar.gz", write_tar, "/{}/escaped.png"),
    ],
)
def test_an_archive_that_leads_out(kind: str, write, escaping: str, tmp_path, monkeypatch) -> None:
    cache = tmp_path / "deep" / "in" / "cache"
    for name in ("HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH"):
        monkeypatch.setattr(datasets.config, name, cache / name.lower())
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / f"train.{kind}", escaping.format(tmp_path))
    with contextlib.suppress(ValueError):  # it may as well be refused
        load_image_data(DataArguments(dataset=str(tmp_path / "data")))
    escaped = [path for path in tmp_path.rglob("escaped.png") if cache not in path.parents]
    assert escaped == []
