"""Every optimizer computes what its authors' own code computes, on the 25 recorded cases."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_geo import optim

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "optim"
CASES = {row["case"]: row for row in json.loads((GOLDEN / "index.json").read_text())}
STEPS = (1, 2, 3, 5, 10, 20)
# What the authors call otherwise.
OUR_NAMES = {"max_lr": "lr"}


def renamed(settings):
    return {OUR_NAMES.get(key, key): value for key, value in settings.items()}


def largest_error(case, dtype, **settings):
    """The largest error of any parameter after any recorded step: absolute, and relative to the tensor's norm."""
    row = CASES[case]
    inputs = {k: v.to(dtype) for k, v in load_file(GOLDEN / row["inputs"]).items()}
    expected = load_file(GOLDEN / row["file"])
    params = [torch.nn.Parameter(inputs[f"init.{i}"].clone()) for i in range(7)]
    groups = [renamed({**group, "params": [params[i] for i in group["params"]]}) for group in row["groups"]]
    optimizer = getattr(optim, row["optimizer"])(groups, **renamed(row["kwargs"]), **settings)
    absolute, relative = 0.0, 0.0
    for step in range(1, STEPS[-1] + 1):
        for i, p in enumerate(params):
            p.grad = inputs[f"grad.{step}.{i}"].clone()
        loss = inputs["loss"][step - 1]
        optimizer.step((lambda value=loss: value) if row["loss"] else None)
        if step in STEPS:
            for i, p in enumerate(params):
                truth = expected[f"param.{step}.{i}"]
                error = p.detach().double() - truth
                absolute = max(absolute, error.abs().max().item())
                relative = max(relative, (error.norm() / truth.norm().clamp(min=1e-30)).item())
    return absolute, relative


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_authors_code(case):
    absolute, _ = largest_error(case, torch.float64)
    assert absolute < 1e-10


@pytest.mark.parametrize("case", CASES)
def test_agrees_in_single_precision(case):
    _, relative = largest_error(case, torch.float32)
    assert relative < 1e-5
