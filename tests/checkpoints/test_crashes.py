"""Publishing and removing checkpoints may end at any instant."""

import json
import os
import shutil
from pathlib import Path

import pytest

from hf_geo.checkpoints.listing import list_checkpoints
from hf_geo.checkpoints.store import MANIFEST, STAGING, discard, fault, publish, rotate, seal, staged_whole, tidy
from tests.checkpoints.crashing import CRASHING


def write_checkpoint(folder: Path, content: str) -> None:
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"content": content}))
    (folder / "shards").mkdir()
    (folder / "shards" / "0.distcp").write_text(content)


def content(checkpoint: Path) -> str:
    assert fault(checkpoint) is None
    return (checkpoint / "shards" / "0.distcp").read_text()


def test_all_of_a_checkpoint_is_flushed_before_it_has_its_place(tmp_path, flushed) -> None:
    staged = tmp_path / STAGING / "checkpoint-2"
    write_checkpoint(staged, "new")
    publish(tmp_path, "checkpoint-2")
    files = ("trainer_state.json", "shards/0.distcp", MANIFEST)
    assert {*flushed[:-1]} == {staged, staged / "shards", *(staged / name for name in files)}
    assert flushed[-1] == tmp_path


@pytest.mark.parametrize("replaced", (False, True))
def test_publishing_may_end_at_any_instant(tmp_path, replaced: bool) -> None:
    final = tmp_path / "checkpoint-2"

    def prepare() -> None:
        shutil.rmtree(tmp_path)
        if replaced:
            write_checkpoint(final, "old")
            seal(final)
        write_checkpoint(tmp_path / STAGING / "checkpoint-2", "new")

    seen = set()
    for _ in CRASHING.instants(prepare, lambda: publish(tmp_path, "checkpoint-2")):
        before = content(final) if final.exists() else None
        assert before or not replaced or staged_whole(tmp_path)
        tidy(tmp_path)
        after = content(final) if final.exists() else None
        assert after or not replaced
        seen.add((before, after))
        assert not (tmp_path / STAGING).exists()
    assert content(final) == "new"
    old = "old" if replaced else None
    assert {(old, old), ("new", "new"), (None, "new")} == seen


def test_removing_may_end_at_any_instant(tmp_path) -> None:
    def prepare() -> None:
        shutil.rmtree(tmp_path)
        for step in (1, 2, 3):
            write_checkpoint(tmp_path / f"checkpoint-{step}", str(step))
            seal(tmp_path / f"checkpoint-{step}")

    for _ in CRASHING.instants(prepare, lambda: rotate(tmp_path, 1, [tmp_path / "checkpoint-3"])):
        assert [content(path) for path in list_checkpoints(tmp_path)] in (["1", "2", "3"], ["2", "3"], ["3"])
        tidy(tmp_path)
        assert not (tmp_path / STAGING).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    discard(tmp_path / "checkpoint-3")
    assert not list(tmp_path.iterdir())


def test_the_oldest_by_time_goes_first_where_a_run_went_back_to_an_earlier_step(tmp_path) -> None:
    for time, step in enumerate((2, 3, 1)):
        write_checkpoint(tmp_path / f"checkpoint-{step}", str(step))
        os.utime(tmp_path / f"checkpoint-{step}", (time, time))
    rotate(tmp_path, 2, [])
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-3"]
