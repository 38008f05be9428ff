"""What a sweep's summary makes of results that are known by hand."""

import math

import pandas as pd
import pytest
from scipy import stats

from hf_geo.experiments.figure import draw_sweep
from hf_geo.experiments.report import format_summary, split_settings
from hf_geo.experiments.summary import Summary, choose_metric
from hf_geo.experiments.trials import Trial

# Best 0.8 at 0.01; within 10 %: at least 0.72, so 0.1 and 0.01. At 0.0001 too, but 0.001 lies between.
ACCURACIES = {1.0: 0.1, 0.1: 0.75, 0.01: 0.8, 0.001: 0.5, 0.0001: 0.79}
ERRORS = {lr: 1 - value for lr, value in ACCURACIES.items()}


def table(values: dict[float, float], metric: str = "eval_accuracy", **columns) -> pd.DataFrame:
    rows = [{"optim": "a", "learning_rate": lr, "state": "finished", metric: value} for lr, value in values.items()]
    return pd.DataFrame(rows).assign(**columns)


def summarize(rows: pd.DataFrame, *axes: str, metric: str = "eval_accuracy") -> str:
    return format_summary(Summary(rows, ["optim", "learning_rate", *axes], metric, "learning_rate"))


@pytest.mark.parametrize(
    ("values", "metric", "shown", "near"),
    [
        (ACCURACIES, "eval_accuracy", "80.00 % | learning rate 0.01", "1 (0.01 to 0.1)"),
        (ACCURACIES, "eval_f1", "80.00 % | learning rate 0.01", "1 (0.01 to 0.1)"),
        (ERRORS, "eval_ece", "20.00 % | learning rate 0.01", "0 (0.01)"),  # at most 0.22
        (ERRORS, "eval_loss", "0.2 | learning rate 0.01", "0 (0.01)"),
        ({1.0: 0.7, 0.1: 0.8, 0.01: 0.1}, "eval_accuracy", "80.00 % | learning rate 0.1", "0 (0.1)"),
        ({1.0: 0.79, 0.1: 0.8, 0.01: 0.1}, "eval_accuracy", "80.00 % | learning rate 0.1", "≥ 1 (0.1 to 1)"),
        ({1.0: 0.1, 0.1: 0.79, 0.0: 0.8}, "eval_accuracy", "80.00 % | learning rate 0", "≥ (0 to 0.1)"),
        ({1.0: 90, 0.1: 91, 0.03: 92, 0.01: 120}, "eval_perplexity", "90 | learning rate 1", "≥ 1.52 (0.03 to 1)"),
    ],
)
def test_the_best_and_the_unbroken_range_around_it(values, metric: str, shown: str, near: str) -> None:
    text = summarize(table(values, metric), metric=metric)
    assert f"| a | {shown} | {near} | {near} | {len(values)} | 0 |" in text


def test_an_infinite_rate_is_a_line_across(tmp_path, monkeypatch) -> None:
    rows = pd.concat([table(ERRORS, "eval_loss"), table({math.inf: 0.25}, "eval_loss").assign(optim="b")])
    summary = Summary(rows.reset_index(drop=True), ["optim", "learning_rate"], "eval_loss", "learning_rate")
    assert "| b | 0.25 | learning rate inf | ≥ 0 (inf) | none | 1 | 0 |" in format_summary(summary)
    figures = []
    monkeypatch.setattr("hf_geo.experiments.figure.save", lambda figure, *_: figures.append(figure))
    draw_sweep(summary, tmp_path / "figure.png", "Rates")
    axes = figures[0].axes[0]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [(line.get_label(), set(line.get_ydata())) for line in dashed] == [("b at infinity", {0.25})]
    assert axes.get_xscale() == "log" and axes.get_xlim()[1] < 10


def test_each_series_is_compared_with_itself_and_with_the_best() -> None:
    rows = pd.concat([table({1.0: 0.2, 0.1: 0.5, 0.01: 0.48}), table(ACCURACIES).assign(optim="b")], ignore_index=True)
    text = summarize(rows)
    assert "| a | 50.00 % | learning rate 0.1 | ≥ 1 (0.01 to 0.1) | none | 3 | 0 |" in text
    assert "| b | 80.00 % | learning rate 0.01 | 1 (0.01 to 0.1) | 1 (0.01 to 0.1) | 5 | 0 |" in text


def test_a_rate_that_diverged_ends_the_range_inside_what_was_tried() -> None:
    rows = table({1.0: 0.8, 0.1: 0.8, 0.01: 0.1})
    rows.loc[0, "state"] = "diverged"
    assert "| 0 (0.1) | 0 (0.1) | 3 | 1 |" in summarize(rows)
    rows["state"] = "failed"
    assert "| a | none |  |  |  | 3 | 3 |" in summarize(rows)


def test_a_setting_that_lost_a_seed_does_not_count() -> None:
    rows = pd.concat([table({0.1: 0.9, 0.01: 0.6}, seed=0), table({0.1: 0.9, 0.01: 0.8}, seed=1)], ignore_index=True)
    assert "| a | 90.00 ± 0.00 % (90.00 to 90.00) | learning rate 0.1 |" in summarize(rows, "seed")
    rows.loc[2, "state"] = "failed"
    assert "| a | 70.00 ± 14.14 % (-57.06 to 197.06) | learning rate 0.01 |" in summarize(rows, "seed")


def rows_over_depth() -> pd.DataFrame:
    values = [(0.1, 2, 0.9), (0.01, 2, 0.7), (0.1, 10, 0.2), (0.01, 10, 0.6)]
    rows = [
        {"optim": optim, "model_args.depth": depth, "learning_rate": lr, "state": "finished", "eval_accuracy": value}
        for optim in ("a", "b")
        for lr, depth, value in values[: 4 if optim == "a" else 3]
    ]
    return pd.DataFrame(rows)


def test_along_another_axis_the_best_of_the_rates_is_shown(tmp_path) -> None:
    rows = rows_over_depth()
    summary = Summary(rows, ["optim", "model_args.depth", "learning_rate"], "eval_accuracy", "model_args.depth")
    lines = format_summary(summary).splitlines()
    assert lines[0] == "| eval_accuracy at depth | 2 | 10 |"
    assert lines[2] == "| a | 90.00 % (learning rate 0.1) | 60.00 % (learning rate 0.01) |"
    draw_sweep(summary, tmp_path / "figure.png", "Depth")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_each_value_has_a_curve_and_the_shift_of_its_best_rate_is_shown(tmp_path, monkeypatch) -> None:
    axes = ["optim", "model_args.depth", "learning_rate"]
    summary = Summary(rows_over_depth(), axes, "eval_accuracy", "learning_rate", ["model_args.depth"])
    lines = format_summary(summary).splitlines()
    assert lines[0] == "| best learning rate at | depth 2 | depth 10 | shift from the first to the last |"
    assert lines[2:4] == ["| a | ≥ 0.1 | ≤ 0.01 | ≤ × 0.1 |", "| b | ≥ 0.1 | 0.1 |  |"]
    assert "| a, depth 10 | 60.00 % | learning rate 0.01 |" in lines[-3]
    figures = []
    monkeypatch.setattr("hf_geo.experiments.figure.save", lambda figure, *_: figures.append(figure))
    draw_sweep(summary, tmp_path / "figure.png", "Depths")
    stars = [[line for line in axes.lines if line.get_marker() == "*"] for axes in figures[0].axes]
    assert [axes.get_title() for axes in figures[0].axes] == ["a", "b"]
    assert [[(*line.get_xdata(), *line.get_ydata()) for line in some] for some in stars] == [
        [(0.1, 90), (0.01, 60)],
        [(0.1, 90), (0.1, 20)],
    ]


@pytest.mark.parametrize(
    ("accuracies", "row"),
    [
        ({64: (0.1, 0.9, 0.1), 256: (0.9, 0.1, 0.1)}, "| a | 0.1 | ≤ 0.01 | ≤ × 0.1 |"),
        ({256: (0.1, 0.9, 0.1), 64: (0.1, 0.1, 0.9)}, "| a | ≥ 1 | 0.1 | ≤ × 0.1 |"),  # in order of the widths
        ({64: (0.9, 0.1, 0.1), 256: (0.9, 0.1, 0.1)}, "| a | ≤ 0.01 | ≤ 0.01 |  |"),
        ({64: (None, None, None), 128: (0.1, 0.9, 0.1), 256: (0.9, 0.1, 0.1)}, "| a | none | 0.1 | ≤ 0.01 |  |"),
    ],
)
def test_a_best_rate_at_the_edge_is_a_bound_and_so_is_the_shift(accuracies: dict, row: str) -> None:
    table = pd.DataFrame(
        {"optim": "a", "width": width, "learning_rate": rate, "eval_accuracy": value, "heads": 2}
        for width, values in accuracies.items()
        for rate, value in zip((0.01, 0.1, 1.0), values, strict=True)
    )
    table["state"] = ["failed" if missing else "finished" for missing in table.eval_accuracy.isna()]
    axes = ["optim", "width", "learning_rate", "heads"]
    lines = format_summary(Summary(table, axes, "eval_accuracy", "learning_rate", ["width"])).splitlines()
    assert lines[2] == row
    lines = format_summary(Summary(table, axes, "eval_accuracy", "learning_rate", ["width", "heads"])).splitlines()
    assert "shift" not in lines[0] and row.startswith(lines[2])


def test_without_x_all_series_stand_in_one_panel(tmp_path, monkeypatch) -> None:
    rows = [{"optim": o, "act": a, "state": "finished", "eval_accuracy": 0.5} for o in "ab" for a in ("relu", "gelu")]
    figures = []
    monkeypatch.setattr("hf_geo.experiments.figure.save", lambda figure, *_: figures.append(figure))
    summary = Summary(pd.DataFrame(rows), ["optim", "act"], "eval_accuracy", None, ["act"])
    draw_sweep(summary, tmp_path / "figure.png", "Activations")
    assert [len(axes.get_xticks()) for axes in figures[0].axes] == [4]


def test_means_over_seeds_have_intervals_and_differences_within_chance_are_marked(tmp_path) -> None:
    accuracies = {"a": (0.80, 0.81, 0.82), "b": (0.79, 0.81, 0.80), "c": (0.70, 0.71, 0.72)}
    rows = [
        {"optim": optim, "seed": seed, "state": "finished", "eval_accuracy": value}
        for optim, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    summary = Summary(pd.DataFrame(rows), ["optim", "seed"], "eval_accuracy", None)
    first, second, third = format_summary(summary).splitlines()[2:]
    half = 100 * stats.ttest_1samp(accuracies["a"], 0).confidence_interval().high - 81
    assert first == f"| a | 81.00 ± 1.00 % ({81 - half:.2f} to {81 + half:.2f}) |  |  | 3 | 0 |"
    assert stats.ttest_ind(accuracies["a"], accuracies["b"], equal_var=False).pvalue > 0.05
    assert stats.ttest_ind(accuracies["a"], accuracies["c"], equal_var=False).pvalue < 0.05
    assert "| -1.00, within the interval |" in second and "| -10.00 |" in third
    draw_sweep(summary, tmp_path / "figure.png", "Seeds")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_the_metric_is_the_one_asked_for_or_the_tasks_own() -> None:
    measured = ["train_loss", "eval_loss", "eval_f1", "eval_runtime", "test_f1"]
    assert (choose_metric(measured, None), choose_metric(measured, "test_f1")) == ("eval_f1", "test_f1")
    assert choose_metric(measured[:2], None) == "eval_loss"
    with pytest.raises(
        ValueError, match="measured 'eval_accuracy': --metric is one of train_loss, eval_loss, eval_f1, test_f1"
    ):
        choose_metric(measured, "eval_accuracy")


def test_settings_are_split_into_those_of_all_and_those_of_a_series() -> None:
    trials = [
        Trial({"optim": optim, "lr": lr}, {"optim": optim, "lr": lr, "seed": 1, "decay": decay, "noise": lr}, ())
        for optim, lr, decay in [("a", 1, 0.1), ("a", 2, 0.1), ("b", 1, 0.2), ("b", 2, 0.2)]
    ]
    assert split_settings(trials, ["optim", "lr"]) == ({"seed": 1}, {"a": {"decay": 0.1}, "b": {"decay": 0.2}})
    assert split_settings(trials[:2], ["optim", "lr"]) == ({"seed": 1, "decay": 0.1}, {})
