"""A result replaces the one before it whole, whenever the process ends; a disk that refuses it is told."""

import logging
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from hf_geo.checkpoints.placing import COMPLETE, PARTIAL, place_result
from hf_geo.checkpoints.results import OutOfSpaceError, save_result, save_where_there_is_room
from tests.checkpoints.crashing import CRASHING
from tests.reliability.campaign import OLD, which_result, write_old_result


def write(folder: Path) -> None:
    save_file({"new": OLD["old"]}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"of": "new"}')
    (folder / "figures").mkdir()
    (folder / "figures" / "curve.txt").write_text("new")
    (folder / "trainer_state.json").write_text("{}")  # after the weights by name, but not in order of placing


def opening_result(folder: Path) -> str | None:
    """`which_result`, where a new one without its last file is a mixture."""
    found = which_result(folder)
    return None if found == "new" and not (folder / "trainer_state.json").exists() else found


@pytest.mark.parametrize("old", (None, "old"))
def test_saving_may_end_at_any_instant(tmp_path, old: str | None) -> None:
    def prepare() -> None:
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        if old:
            write_old_result(tmp_path)
        (tmp_path / "notes.txt").write_text("mine")

    def save() -> None:
        assert save_result(tmp_path, write, first=True) is None

    after = []
    for instant in CRASHING.instants(prepare, save):
        placed, is_complete = opening_result(tmp_path), (tmp_path / COMPLETE).exists()
        assert (tmp_path / "model.safetensors").exists() <= (placed is not None)  # what opens is no mixture
        assert placed == old or is_complete or placed == "new"
        partial = {path.name: path.stat().st_size for path in (tmp_path / PARTIAL).glob("*")}
        for later in range(instant % 4, 100, 3):  # the next start may be killed too, and the one after it
            if CRASHING.runs(lambda: place_result(tmp_path), later):
                break
            assert (tmp_path / "model.safetensors").exists() <= (opening_result(tmp_path) is not None)
        after.append(opening_result(tmp_path))
        assert after[-1] == ("new" if is_complete or placed == "new" else old)
        # An incomplete result waits for the next one, for it may be all that a run has left.
        assert {path.name: path.stat().st_size for path in (tmp_path / PARTIAL).glob("*")} == partial
        assert {path.name for path in tmp_path.glob("_*")} <= {PARTIAL}
        assert (tmp_path / "notes.txt").read_text() == "mine"
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"model.safetensors", "config.json", "figures/curve.txt", "trainer_state.json", "notes.txt"}
    assert opening_result(tmp_path) == "new"
    assert set(after) == {old, "new"} and after == sorted(after, key=lambda found: found == "new")


def test_all_of_a_result_is_flushed_before_it_counts_and_the_weights_have_their_place_last(tmp_path, flushed) -> None:
    write_old_result(tmp_path)
    assert save_result(tmp_path, write, first=True) is None
    partial = tmp_path / PARTIAL
    written = [path for path in flushed if path == partial or partial in path.parents]
    assert {"model.safetensors", "config.json", "figures", "curve.txt", PARTIAL} <= {path.name for path in written}
    after = flushed[len(written) :]
    # The complete result's name, the removal of the old one, the other files before the weights, and all of them.
    assert after[0] == tmp_path and after.count(tmp_path) == 4 and tmp_path / "figures" in after


def refuse(folder: Path) -> None:
    write(folder)
    raise OSError(122, "Disk quota exceeded")


def test_the_fallback_is_taken_when_the_disk_refuses(tmp_path, caplog) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    write_old_result(out)

    def only_elsewhere(folder: Path) -> None:
        (refuse if folder.parent == out else write)(folder)

    with caplog.at_level(logging.WARNING, "hf_geo"):
        assert save_where_there_is_room(str(out), str(other), only_elsewhere, first=True) == str(other)
    assert f"to '{out}', because the disk quota is used up: it is in '{other}' instead." in caplog.text
    assert which_result(other) == "new" and which_result(out) == "old" and not list(out.glob("_*"))
    with pytest.raises(OutOfSpaceError, match=f"nor to '{other}', because the disk quota is used up: set that right"):
        save_where_there_is_room(str(out), str(other), refuse, first=True)
    with pytest.raises(OutOfSpaceError, match="or name a --fallback_dir that has room"):
        save_where_there_is_room(str(out), None, refuse, first=True)
    assert which_result(other) == "new" and which_result(out) == "old"


def test_other_errors_are_not_taken_for_the_disk(tmp_path) -> None:
    def fail(folder: Path) -> None:
        raise ValueError("a mistake in the program")

    with pytest.raises(ValueError, match="a mistake in the program"):
        save_result(tmp_path, fail, first=True)
