"""How the values of a sweep are read, named and drawn from."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hf_geo.experiments.search import as_distribution
from hf_geo.experiments.trials import (
    Trial,
    axis_label,
    check_axes,
    collect_axes,
    combinations,
    format_value,
    parse_number,
    split_values,
)

NUMBERS = {0.1: 0.1, "1e-3": 0.001, "depth=20,width=64": 20.0, "width=w,depth=3": 3.0, "none": None, "v2": None}


def test_numbers_are_found_in_settings_and_written_as_people_do() -> None:
    assert {value: parse_number(value) for value in NUMBERS} == NUMBERS
    assert [format_value(value) for value in (0.1 + 0.2, 100.0, 3, "x")] == ["0.3", "100", "3", "x"]
    assert [axis_label(value, "model_args") for value in ("mlp_depth=3,width=2", 3)] == ["mlp depth", "model args"]


def test_names_of_trials_are_readable_and_differ() -> None:
    values = [{"optim": "sgd", "learning_rate": 0.0001}, {"learning_rate": 1e-5}, {"a": "x/y"}, {"a": "x_y"}]
    names = [Trial(value, {}, ()).name for value in values]
    assert names == ["optim=sgd,learning_rate=0.0001", "learning_rate=1e-05", "a=x%2Fy", "a=x_y"]


def test_the_grid_is_every_combination() -> None:
    assert split_values("--lrs", " 1, 0.1,") == ["1", "0.1"]
    axes = collect_axes({"optim": ["a", "b"]}, [["lr", "1", "2"]], ["lr"])
    check_axes(axes, "lr", is_search=False)
    assert [tuple(point.values()) for point in combinations(axes)] == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]


REFUSED = {
    "no value": (lambda: split_values("--lrs", " , "), "--lrs names no value, so there is nothing to try"),
    "unknown": (lambda: collect_axes({}, [["lrate", "1"]], ["rate"]), "no field 'lrate' to sweep over; did you mean 'rate'"),
    "empty": (lambda: collect_axes({}, [["seed"]], ["seed"]), "--grid seed names no value"),
    "twice": (lambda: collect_axes({"seed": ["1"]}, [["seed", "2"]], ["seed"]), "seed is swept over twice"),
    "nothing": (lambda: collect_axes({}, [], []), "There is nothing to sweep over"),
    "x": (lambda: check_axes({"optim": ["a"]}, "lr", is_search=False), "--x is lr, which is not swept over: choose one of optim"),
    "x of text": (lambda: check_axes({"lr": ["1", "fast"]}, "lr", is_search=False), r"--x is lr, whose values are no numbers \(1, fast\)"),
    "range": (lambda: check_axes({"lr": ["0.1:1"]}, "lr", is_search=False), "lr is given as a range, 0.1:1: say how many --trials"),
    "empty range": (lambda: as_distribution("lr", ["1:0.1"]), "The range 1:0.1 of lr is empty"),
    "range beside values": (lambda: as_distribution("lr", ["0.1:1", "2"]), r"lr has a range beside other values \(0.1:1, 2\)"),
}  # fmt: skip


def test_wrong_axes_are_refused() -> None:
    for call, message in REFUSED.values():
        with pytest.raises(ValueError, match=message):
            call()


def test_optuna_draws_as_the_values_ask() -> None:
    assert as_distribution("lr", ["a", "b"]) == CategoricalDistribution(["a", "b"])
    assert as_distribution("x", ["1e-4:0.9"]) == FloatDistribution(1e-4, 0.9, log=True)
    assert as_distribution("x", ["-1:0.9"]) == FloatDistribution(-1, 0.9)
    assert as_distribution("x", ["1:9"]) == IntDistribution(1, 9)
    assert as_distribution("learning_rate", ["1:9"]) == FloatDistribution(1, 9, log=True)
