"""The fast steps of SGD-G and Adam-G are the plain ones, which stand as the paper writes them."""

import pytest

from hf_geo.optim import grassmann
from hf_geo.optim.kernels.great_circles import adam_g, sgd_g
from tests.cases import CASES, Case, assert_same, drive, make_params


def plain_sgd_g(x, g, m, *settings):
    grassmann.copy_into((x, m), sgd_g(x, g, m, *settings))


def plain_adam_g(x, g, m, v, *settings):
    grassmann.copy_into((x, m, v), adam_g(x, g, m, v, *settings))


@pytest.mark.parametrize("case", [c for c in CASES if c.unit_rows], ids=str)
def test_the_fast_step_is_the_plain_one(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    params, expected = make_params(), make_params()
    optimizer, reference = case.make(params), case.make(expected)
    drive(case, optimizer, params, 5)
    monkeypatch.setattr(grassmann, "fast_sgd_g", plain_sgd_g)
    monkeypatch.setattr(grassmann, "fast_adam_g", plain_adam_g)
    drive(case, reference, expected, 5)
    assert_same(params, expected, rtol=1e-11, atol=1e-11)
    for param, other in zip(params, expected, strict=True):
        for key, value in reference.state[other].items():
            assert_same([optimizer.state[param][key]], [value], rtol=1e-11, atol=1e-11)
