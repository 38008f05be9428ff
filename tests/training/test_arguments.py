"""What a user types becomes typed settings, the real name everywhere, and one sentence where it is wrong."""

import logging

import pytest
from transformers import HfArgumentParser, TrainingArguments
from transformers.training_args import OptimizerNames

from hf_geo import GeoTrainingArguments
from hf_geo.optim import get_method, list_optimizers
from hf_geo.training.methods import parse_optim_args, parse_value


def make(**settings) -> GeoTrainingArguments:
    return GeoTrainingArguments(output_dir="unused", **settings)


@pytest.mark.parametrize("name", list_optimizers())
def test_the_real_name_is_shown_and_defaults_are_the_methods(name: str) -> None:
    args, method = make(optim=name), get_method(name)
    assert args.optim == args.to_dict()["optim"] == args.to_sanitized_dict()["optim"] == name
    assert args.learning_rate == method.lr
    assert args.max_grad_norm == (1.0 if method.clipping == "allowed" else 0.0)
    assert make(optim=name, learning_rate=0.3, max_grad_norm=2.0).learning_rate == 0.3


@pytest.mark.parametrize("name", ["adamw_torch", "sgd", "adafactor"])
def test_transformers_names_keep_working(name: str) -> None:
    theirs = TrainingArguments(output_dir="unused", optim=name).to_dict()
    assert {key: value for key, value in make(optim=name).to_dict().items() if key in theirs} == theirs


def test_the_command_line_reaches_the_fields() -> None:
    words = ["--output_dir=unused", "--optim=fromage", "--optim_args=p_bound=2.0", "--learning_rate=1e-3"]
    (args,) = HfArgumentParser(GeoTrainingArguments).parse_args_into_dataclasses(words)
    assert (args.optim, args.optim_args, args.learning_rate) == ("fromage", "p_bound=2.0", 1e-3)


def test_an_unknown_name_lists_all() -> None:
    with pytest.raises(ValueError, match=r"Unknown optimizer 'fromages'. Did you mean 'fromage'\?") as raised:
        make(optim="fromages")
    known = [*list_optimizers(), *(name.value for name in OptimizerNames)]
    assert [name for name in known if name not in str(raised.value)] == []


def test_set_optimizer_takes_both_kinds() -> None:
    args = make().set_optimizer("fromage", args="p_bound=2.0")
    assert (args.optim, args.learning_rate, args.optim_args) == ("fromage", 0.01, "p_bound=2.0")
    args.set_optimizer("sgd", learning_rate=0.1)
    assert (args.optim, args.learning_rate) == ("sgd", 0.1)
    assert (args.max_grad_norm, args.set_optimizer("alig").max_grad_norm) == (1.0, 0.0)
    assert make(max_grad_norm=3.0).set_optimizer("alig").max_grad_norm == 3.0
    with pytest.raises(ValueError, match="no setting 'q_bound'"):
        args.set_optimizer("fromage", args="q_bound=2.0")
    with pytest.raises(ValueError, match=r"--adam_beta1 0.5 is for transformers' own optimizers, not fromage"):
        make().set_optimizer("fromage", beta1=0.5)
    with pytest.raises(ValueError, match=r"--learning_rate is a number of at least 0, not -1\.0"):
        make().set_optimizer("fromage", learning_rate=-1.0)


@pytest.mark.parametrize(
    ("name", "level"), [("alig", "WARNING"), ("fromage", "INFO"), ("sgdg", "INFO"), ("sgdmrt", None)]
)
def test_clipping_against_the_method_is_said(name: str, level: str | None, caplog) -> None:
    caplog.set_level(logging.INFO, "hf_geo.training.arguments")
    make(optim=name)
    assert not caplog.records
    make(optim=name, max_grad_norm=1.0)
    assert [record.levelname for record in caplog.records] == ([level] if level else [])


VALUES = [("1", 1), ("0.5", 0.5), ("1e-3", 1e-3), ("true", True), ("False", False), ("none", None), ("0.9:0.99", (0.9, 0.99)),
          (" 2 ", 2), ("0:", (0,)), (":", ()), ("-1", -1)]  # fmt: skip


def test_values() -> None:
    for text, value in VALUES:
        assert parse_value(text) == value and type(parse_value(text)) is type(value), text


def test_settings_of_one_group() -> None:
    parsed = parse_optim_args(get_method("sgdg"), "momentum=0.8, geometry.lr=0.2,geometry.grad_clip=none")
    assert parsed == ({"momentum": 0.8}, {"geometry": {"lr": 0.2, "grad_clip": None}})


WRONG = [
    ("p_bound", "not of the form key=value"),
    ("p_bonud=1", "fromage has no setting 'p_bonud': did you mean 'p_bound'"),
    ("p_bound=big", "p_bound=big: cannot read 'big'"),
    ("p_bound=1,p_bound=2", "'p_bound' twice"),
    ("lr=0.1", "--learning_rate 0.1"),
    ("geometry.q=1", "no setting .q."),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_wrong_optim_args(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(optim="fromage", optim_args=text)
