"""How the values of a sweep are read, named and drawn from."""

from collections.abc import Callable

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hf_geo.experiments.search import as_distribution
from hf_geo.experiments.trials import (
    Trial,
    axis_label,
    choose_x,
    collect_axes,
    combinations,
    format_value,
    make_trial,
    parse_number,
    split_values,
)

NUMBERS = {0.1: 0.1, "1e-3": 0.001, "depth=20": None, "none": None, "v2": None}


def test_numbers_are_found_in_settings_and_written_as_people_do() -> None:
    assert {value: parse_number(value) for value in NUMBERS} == NUMBERS
    assert [format_value(value) for value in (0.1 + 0.2, 100.0, 3, "x")] == ["0.3", "100", "3", "x"]
    assert [axis_label(field) for field in ("learning_rate", "model_args.drop_rate")] == ["learning rate", "drop rate"]


def test_names_of_trials_are_readable_and_differ() -> None:
    values = [{"optim": "sgd", "learning_rate": 0.0001}, {"learning_rate": 1e-5}, {"a": "x/y"}, {"a": "x_y"}]
    names = [Trial(value, {}, ()).name for value in values]
    assert names == ["optim=sgd,learning_rate=0.0001", "learning_rate=1e-05", "a=x%2Fy", "a=x_y"]


def test_the_grid_is_every_combination() -> None:
    assert split_values("--lrs", " 1, 0.1,") == ["1", "0.1"]
    assert split_values("--over", "(8,8),(4,4),none") == ["(8,8)", "(4,4)", "none"]
    axes = collect_axes({"optim": ["a", "b"]}, ["lr=1,2"], ["lr"])
    assert [tuple(point.values()) for point in combinations(axes)] == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]


def test_the_arguments_of_the_model_are_swept_over_one_by_one() -> None:
    given = {"model_args": "depth=4,img_size=(8,8),path=/a/b.pth,width=2", "optim_args": None, "seed": "1"}

    def resolve_private(words) -> dict:
        return {**given, **dict(word.removeprefix("--").split("=", 1) for word in words)}

    def resolve(words) -> dict:
        return {name: value and value.replace("/a/", "") for name, value in resolve_private(words).items()}

    values = {"model_args.width": "64", "model_args.act": "gelu", "optim_args.momentum": 0.9}
    trial = make_trial(values, (), resolve, resolve_private)
    assert trial.arguments == (
        "--model_args=depth=4,img_size=(8,8),path=/a/b.pth,width=64,act=gelu",
        "--optim_args=momentum=0.9",
    )
    arguments = {"depth": 4, "img_size": "(8,8)", "path": "b.pth", "width": 64, "act": "gelu"}
    expected = {f"model_args.{name}": value for name, value in arguments.items()}
    assert trial.settings == {**expected, "optim_args.momentum": 0.9, "seed": "1"}
    assert trial.values == {"model_args.width": 64, "model_args.act": "gelu", "optim_args.momentum": 0.9}


def test_results_are_drawn_against_the_rate_or_what_else_has_numbers() -> None:
    axes = {"optim": ["a"], "model_args.width": ["1", "2"], "model_args.act": ["relu"]}
    axes |= {"learning_rate": ["1"], "seed": ["0"]}
    assert choose_x(axes, None, is_search=False) == "learning_rate"
    assert choose_x(axes, "model_args.width", is_search=False) == "model_args.width"
    del axes["learning_rate"]
    assert choose_x(axes, None, is_search=False) == "model_args.width"
    assert choose_x({"optim": ["a"], "seed": ["0", "1"]}, None, is_search=False) is None


def refuse(field: str, values: list[str], asked: str | None = None) -> Callable[[], object]:
    return lambda: choose_x({"optim": ["a"], field: values}, asked, is_search=False)


REFUSED = {
    "no value": (lambda: split_values("--lrs", " , "), "--lrs names no value, so there is nothing to try"),
    "unknown": (lambda: collect_axes({}, ["lrate=1"], ["rate"]), "no field 'lrate' to sweep over; did you mean 'rate'"),
    "no such form": (lambda: collect_axes({}, ["rate.a=1"], ["rate"]), "no field 'rate.a' to sweep over."),
    "empty": (lambda: collect_axes({}, ["seed"], ["seed"]), "--over seed= names no value"),
    "twice": (lambda: collect_axes({"seed": ["1"]}, ["seed=2"], ["seed"]), "seed is swept over twice"),
    "nothing": (lambda: collect_axes({}, [], []), "There is nothing to sweep over"),
    "x": (refuse("lr", ["1"], "rate"), "--x is rate, which is not swept over: choose one of optim, lr"),
    "x of text": (refuse("lr", ["1", "fast"], "lr"), r"--x is lr, whose values are no quantities \(1, fast\)"),
    "range": (refuse("lr", ["0.1:1"]), "lr is given as a range, 0.1:1: say how many --trials"),
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
