"""scripts/tour.ipynb runs from top to bottom, and shows what it shows."""

import copy

import nbformat
import pytest
from nbclient import NotebookClient

from tests.paths import REPOSITORY

TOUR = REPOSITORY / "scripts" / "tour.ipynb"


def text_of(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


@pytest.mark.slow
def test_tour(tmp_path, monkeypatch) -> None:
    kept = nbformat.read(TOUR, as_version=4)
    assert TOUR.stat().st_size < 300_000
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # beside other tests two threads wait for each other most of the time
    fresh, where = copy.deepcopy(kept), {"metadata": {"path": str(tmp_path)}}
    NotebookClient(fresh, timeout=600, kernel_name="python3", coalesce_streams=True, resources=where).execute()
    for before, after in zip(kept.cells, fresh.cells, strict=True):
        kinds = [
            [(output.output_type, *sorted(output.get("data", ()))) for output in cell.get("outputs", [])]
            for cell in (before, after)
        ]
        assert kinds[0] == kinds[1]
    shown = "\n".join(map(text_of, fresh.cells))
    accuracies = [float(word.split(" %")[0]) for word in shown.split("\naccuracy ")[1:]]
    assert len(accuracies) == 2 and min(accuracies) > 90
    assert "They are linearly connected" in shown and "read the same weights: True" in shown
