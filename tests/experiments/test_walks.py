"""Evaluations of several runs in one figure and table: `scripts/results.py --walks`."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from hf_geo.experiments.results import walks
from tests.experiments.sweeps import load
from tests.experiments.test_results import configs, write_run  # noqa: F401  (a fixture)

DATA = {"dataset": "digits", "split": "test", "samples": 1000}


def point(name: str, position: object, accuracy: float) -> dict:
    return {"name": name, "position": position, "accuracy": accuracy, "ece": accuracy / 10, "nll": 1.0}


def joined(members: list[str], accuracy: float, disagreement: float | None = None) -> dict:
    row = {"members": members, "accuracy": accuracy, "ece": 0.01, "member_accuracies": [0.5] * len(members)}
    return row if disagreement is None else row | {"disagreement": disagreement}


def write_evaluation(folder: Path, space: dict | None, points: list, ensembles: list, **more) -> Path:
    folder.mkdir(exist_ok=True)
    data = {**DATA, "subspace": space, "points": points, "ensembles": ensembles, "models": ["a", "b"], **more}
    (folder / "evaluation.json").write_text(json.dumps(data))
    return folder


@pytest.fixture
def folders(configs) -> list[Path]:  # noqa: F811
    """Two lines, a plain network, two simplexes, an ensemble of two networks, and a barrier between snapshots."""
    made, line = [], {"kind": "line", "num_points": 2}
    for seed in (0, 1):
        run = write_run(configs, f"line-{seed}", "fromage", 0.5, changes={"seed": seed, "max_steps": 8})  # of 4 epochs
        log = [
            {"step": step, "subspace/cosine/0-1": 0.2 * seed, "subspace/distance/0-1": 3.0 * step} for step in (1, 2)
        ]
        (run / "trainer_state.json").write_text(json.dumps({"log_history": [*log, {"step": 2, "loss": 1.0}]}))
        centre = 0.6 + 0.2 * seed
        points = [point(f"{at:g}", at, value) for at, value in ((0.0, 0.5), (0.5, centre), (1.0, 0.4))]
        points.append(point("layer-wise draw 1", [0.1], 0))
        made.append(
            write_evaluation(run, line, points, [joined(["0", "1"], centre, 0.25), joined(["layer-wise draw 1"], 0)])
        )
    plain = write_run(configs, "plain", "sgd", 0.5)
    made.append(write_evaluation(plain, None, [point("plain", None, 0.55)], []))
    made.append(
        write_evaluation(configs.parent / "both", None, [point("a", None, 0.5)] * 2, [joined(["a", "b"], 0.65, 0.3)])
    )
    for count in (2, 3):
        corners = [point(f"corner {i}", row, 0.3) for i, row in enumerate(np.eye(count).tolist())]
        centre, names = point("centre", [1 / count] * count, count / 10), ["draw 1", "draw 2", "draw 3"]
        draws = [joined(names[:2], 0.45), joined(names, 0.55)]
        space = {"kind": "simplex", "num_points": count}
        made.append(write_evaluation(configs.parent / f"simplex-{count}", space, [*corners, centre], draws))
    snapshots = configs.parent / "snapshots"
    snapshots.mkdir()
    rows = [{"accuracy": value, "ece": 0.1} for value in (0.3, 0.2, 0.3)]
    merge = {"method": "barrier", "parents": [{"name": "s1"}, {"name": "s2"}], "curves": {"anew": rows}, **DATA,
             "points": rows, "curve_positions": [0.0, 0.5, 1.0]}  # fmt: skip
    (snapshots / "merge.json").write_text(json.dumps(merge))
    return [*made, snapshots]


def test_every_panel_shows_means_over_runs(folders, tmp_path, monkeypatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(walks, "save", lambda figure, path, title: drawn.append(figure))
    walks.draw_evaluations(walks.read_evaluations(folders), tmp_path / "figure.png")
    lines = {
        axes.get_ylabel(): {line.get_label(): [*map(list, line.get_data())] for line in axes.lines}
        for axes in drawn[0].axes
    }
    accuracy = lines["accuracy (%)"]
    assert lines.keys() == {
        "accuracy (%)", "calibration error (%)", "disagreement of a and 1 - a (%)", "cosine of control points",
        "distance of control points", "accuracy at the simplex's centre (%)", "accuracy of ensembles (%)",
    }  # fmt: skip
    expected = {
        "fromage": [[0, 0.5, 1], [50, 70, 40]],
        "fromage, ensemble": [[0, 1], [70, 70]],
        "s1 to s2": [[0, 0.5, 1], [30, 20, 30]],
        "sgd": [[0, 1], [55, 55]],
        "ensemble of 2 networks": [[0, 1], [65, 65]],
    }
    assert accuracy.keys() == expected.keys()
    for label, values in expected.items():
        np.testing.assert_allclose(accuracy[label], values)
    np.testing.assert_allclose(lines["disagreement of a and 1 - a (%)"]["fromage"], [[0, 1], [25, 25]])
    np.testing.assert_allclose(lines["accuracy at the simplex's centre (%)"]["simplex"], [[2, 3], [20, 30]])
    np.testing.assert_allclose(lines["cosine of control points"]["fromage"], [[1, 2], [0.1, 0.1]])
    np.testing.assert_allclose(lines["distance of control points"]["fromage"], [[1, 2], [3, 6]])
    ensembles = lines["accuracy of ensembles (%)"]
    np.testing.assert_allclose(ensembles["simplex: its members"], [[2, 3], [50, 50]])
    np.testing.assert_allclose(ensembles["simplex: ensemble"], [[2, 3], [45, 55]])


def test_they_become_a_section_with_a_table(configs, folders) -> None:  # noqa: F811
    # Neither the ensemble of several runs nor the barrier between two lies in a folder of a run.
    assert load("results").main([f"--configs={configs}", "--walks", *map(str, folders)]) == 0
    text = (configs / "paper" / "RESULTS.md").read_text()
    assert (
        "3 runs of [a.yaml](a.yaml), each of 4 epochs. 6 minutes of training on an abacus. Evaluated on 1,000 samples of the test split of digits."
        in text
    )
    # Golden: the mean of 60 and 80, and their deviation.
    assert "| fromage | 2 | 70.00 ± 14.14 | 7.00 ± 1.41 | 40.00 ± 0.00 | 70.00 ± 14.14 | 25.00 ± 0.00 |" in text
    assert "| sgd | 1 | 55.00 | 5.50 |  |  |  |" in text
    assert "| ensemble of 2 networks | 1 | 65.00 | 1.00 |  |  | 30.00 |" in text
    assert "| simplex of 3 points | 1 | 30.00 | 3.00 | 30.00 |  |  |" in text
    assert (configs / "paper" / "walks-a.png").is_file()


def test_a_folder_without_anything_to_draw_ends_in_one_sentence(configs, capsys) -> None:  # noqa: F811
    run = write_run(configs, "run", "sgd", 0.9)
    for message in ("holds no evaluation.json: scripts/evaluate.py writes it.", "There is nothing to draw"):
        with pytest.raises(SystemExit):
            load("results").main([f"--configs={configs}", "--walks", str(run)])
        assert message in capsys.readouterr().err
        (run / "evaluation.json").write_text(json.dumps({"points": [{"loss": 2.0}]}))  # of a language model


def test_of_an_even_number_of_positions_no_centre_is_shown(tmp_path) -> None:
    points = [point(name, float(name), 0.5 + i / 10) for i, name in enumerate(("0", "0.33", "0.67", "1"))]
    write_evaluation(tmp_path / "line", {"kind": "line", "num_points": 2}, points, [joined(["0", "1"], 0.9, 0.2)])
    table = walks.tabulate_evaluations(walks.read_evaluations([tmp_path]))
    assert "| line | 1 |  |  | 50.00 | 90.00 | 20.00 |" in table


def test_a_calibration_error_that_is_not_finite_is_left_out(tmp_path) -> None:
    row = {**point("plain", None, 0.5), "ece": None}  # JSON has no NaN
    write_evaluation(tmp_path / "plain", None, [row], [], models=["a"])
    found = walks.read_evaluations([tmp_path])
    walks.draw_evaluations(found, tmp_path / "figure.png")
    assert "| a | 1 | 50.00 |  |  |  |  |" in walks.tabulate_evaluations(found)


def test_models_compared_without_an_ensemble_are_runs_of_their_own(tmp_path) -> None:
    folder = write_evaluation(tmp_path / "a", None, [point("a", None, 0.5), point("b", None, 0.7)], [])
    (folder / "training_args.json").write_text(json.dumps({"variant": "sgd"}))  # of the first alone
    assert "| a, b | 2 | 60.00 ± 14.14 |" in walks.tabulate_evaluations(walks.read_evaluations([folder]))


@pytest.mark.parametrize("other", [{"dataset": "other"}, {"split": "eval"}, {"samples": 40}])
def test_evaluations_on_different_data_are_not_compared(tmp_path, other: dict) -> None:
    for name, changes in (("a", {}), ("b", other)):
        write_evaluation(tmp_path / name, None, [point("plain", None, 0.5)], [], **changes)
    where = "{samples:,} samples of the {split} split of {dataset}".format(**DATA | other)
    with pytest.raises(ValueError, match=f"1,000 samples of the test split of digits and .*b' on {where}"):
        walks.read_evaluations([tmp_path])
