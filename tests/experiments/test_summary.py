"""What a sweep's summary makes of figures that are known by hand."""

import pandas as pd
import pytest

from hf_geo.experiments.plan import Trial, as_number, as_text
from hf_geo.experiments.summary import Summary

# Best 0.8 at 0.01; within 10 %: at least 0.72, so 0.1 and 0.01. At 0.0001 too, but 0.001 lies between.
ACCURACIES = {1.0: 0.1, 0.1: 0.75, 0.01: 0.8, 0.001: 0.5, 0.0001: 0.79}


def table(values: dict[float, float], metric: str = "eval_accuracy", **columns) -> pd.DataFrame:
    rows = [{"optim": "a", "learning_rate": lr, "state": "finished", metric: value} for lr, value in values.items()]
    return pd.DataFrame(rows).assign(**columns)


def summarize(rows: pd.DataFrame, *axes: str, metric: str = "eval_accuracy") -> Summary:
    return Summary(rows, ["optim", "learning_rate", *axes], metric, "learning_rate")


@pytest.mark.parametrize(
    ("values", "metric", "stretch"),
    [
        (ACCURACIES, "eval_accuracy", "1 (0.01 to 0.1)"),
        ({lr: 1 - value for lr, value in ACCURACIES.items()}, "eval_loss", "0 (0.01)"),  # at most 0.22
        ({1.0: 0.7, 0.1: 0.8, 0.01: 0.1}, "eval_accuracy", "0 (0.1)"),
        ({1.0: 0.79, 0.1: 0.8, 0.01: 0.1}, "eval_accuracy", "≥ 1 (0.1 to 1)"),  # who knows about 10
        ({lr: 1 - value for lr, value in ACCURACIES.items()}, "eval_ece", "0 (0.01)"),
        (ACCURACIES, "eval_f1", "1 (0.01 to 0.1)"),  # a sweep on F1 once chose the worst
        ({1.0: 90.0, 0.1: 91.0, 0.03: 92.0, 0.01: 120.0}, "eval_perplexity", "≥ 1.52 (0.03 to 1)"),
    ],
)
def test_the_unbroken_stretch_around_the_best(values, metric: str, stretch: str) -> None:
    text = summarize(table(values, metric), metric=metric).as_markdown()
    assert f"| {stretch} | {stretch} | {len(values)} | 0 |" in text


def test_a_rate_that_diverged_ends_the_stretch_inside_what_was_tried() -> None:
    rows = table({1.0: 0.8, 0.1: 0.8, 0.01: 0.1})
    rows.loc[0, "state"] = "diverged"
    assert "| 0 (0.1) | 0 (0.1) | 3 | 1 |" in summarize(rows).as_markdown()


def test_a_setting_that_lost_a_seed_does_not_count() -> None:
    rows = pd.concat([table({0.1: 0.9, 0.01: 0.6}, seed=0), table({0.1: 0.9, 0.01: 0.8}, seed=1)], ignore_index=True)
    assert "| a | 90.00 ± 0.00 % | learning_rate 0.1 |" in summarize(rows, "seed").as_markdown()
    rows.loc[2, "state"] = "failed"
    assert "| a | 70.00 ± 14.14 % | learning_rate 0.01 |" in summarize(rows, "seed").as_markdown()


def test_along_another_field_the_best_of_the_rates_is_shown(tmp_path) -> None:
    rows = [
        {"optim": "a", "learning_rate": lr, "model_args": f"depth={depth}", "state": "finished", "eval_accuracy": value}
        for lr, depth, value in [(0.1, 2, 0.9), (0.01, 2, 0.7), (0.1, 10, 0.2), (0.01, 10, 0.6)]
    ]
    summary = Summary(pd.DataFrame(rows), ["optim", "learning_rate", "model_args"], "eval_accuracy", "model_args")
    lines = summary.as_markdown().splitlines()
    assert lines[0] == "| eval_accuracy at depth | 2 | 10 |"
    assert lines[2] == "| a | 90.00 % (learning_rate 0.1) | 60.00 % (learning_rate 0.01) |"
    summary.draw(tmp_path / "figure.png", "Depth")
    assert (tmp_path / "figure.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("value", "number"),
    [(0.1, 0.1), ("1e-3", 0.001), ("depth=20,width=64", 20.0), ("width=w,depth=3", 3.0), ("none", None), ("v2", None)],
)
def test_numbers_in_settings(value, number: float | None) -> None:
    assert as_number(value) == number


def test_names_of_trials_are_one_to_one_and_readable() -> None:
    values = [
        {"optim": "sgd", "learning_rate": 0.0001},
        {"optim": "sgd", "learning_rate": 1e-5},
        {"a": "x/y"},
        {"a": "x_y"},
    ]
    names = [Trial(value, {}, ()).name for value in values]
    assert names[:2] == ["optim=sgd,learning_rate=0.0001", "optim=sgd,learning_rate=1e-05"]
    assert len(set(names)) == 4 and not any("/" in name for name in names)
    assert (as_text(0.1 + 0.2), as_text(100.0), as_text(3), as_text("x")) == ("0.3", "100", "3", "x")
