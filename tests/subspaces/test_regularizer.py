"""The squared cosine, against NumPy and finite differences."""

import numpy as np
import pytest
import torch
from torch import nn

from hf_geo.subspaces import Subspace, SubspaceConfig, draw_generator, squared_cosine
from hf_geo.subspaces.regularizer import compare_points
from tests.subspaces.cases import Containers, GoldenNetwork


def _vectors(dtype: torch.dtype = torch.float64) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    shapes = [(3, 4), (2, 2, 2), (5, 1)]
    return tuple([torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes] for _ in range(2))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-6)]
)
def test_value_is_numpys(dtype: torch.dtype, tolerance: float) -> None:
    first, second = _vectors(dtype)
    a, b = (np.concatenate([t.detach().double().numpy().ravel() for t in point]) for point in (first, second))
    expected = (a @ b) ** 2 / ((a @ a) * (b @ b))
    assert squared_cosine(first, second).item() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradient_is_that_of_finite_differences(dtype: torch.dtype) -> None:
    first, second = _vectors(dtype)
    assert torch.autograd.gradcheck(lambda *t: squared_cosine(t[:3], t[3:]), (*first, *second))


def test_complex_numbers_count_as_pairs() -> None:
    (first, real), (second, other) = ([_vectors(torch.complex64)[0][0], torch.randn(4, 2)] for _ in range(2))
    pairs = [[torch.view_as_real(z), x] for z, x in ((first, real), (second, other))]
    torch.testing.assert_close(squared_cosine([first, real], [second, other]), squared_cosine(*pairs))


def test_channels_last_tensors_are_compared_element_by_element() -> None:
    a, b = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    mixed = squared_cosine([a.to(memory_format=torch.channels_last)], [b])
    torch.testing.assert_close(mixed, squared_cosine([a], [b]))


def test_a_zero_point_gives_zero_and_finite_gradients() -> None:
    first, second = _vectors()
    with torch.no_grad():
        for tensor in second:
            tensor.zero_()
    value = squared_cosine(first, second)
    value.backward()
    assert value.item() == 0
    assert all(torch.isfinite(t.grad).all() for t in (*first, *second))


def test_a_subspace_without_a_weight_of_two_axes_has_nothing_to_regularize() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    subspace = Subspace.attach(model, SubspaceConfig(parameters="^1", beta=0.0))
    assert subspace.regularizer().item() == 0


@pytest.mark.parametrize("size", [1e-5, 1e-2, 1.0])
def test_the_distance_of_close_points_is_not_lost_in_rounding(size: float) -> None:
    first = [torch.randn(300, 400), torch.randn(50)]
    second = [tensor + size * torch.randn_like(tensor) for tensor in first]
    values = compare_points([first, second])
    difference = torch.cat([(a.double() - b.double()).flatten() for a, b in zip(first, second, strict=True)])
    assert values["distance/0-1"] == pytest.approx(difference.norm().item(), rel=1e-5)
    assert -1 <= values["cosine/0-1"] <= 1 and compare_points([first, first])["distance/0-1"] == 0


def test_it_covers_weights_with_two_axes_and_no_others() -> None:
    model = Containers()
    subspace = Subspace.attach(model, SubspaceConfig(), model_init=Containers)
    before = subspace.regularizer()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2 or not parameter.requires_grad:
                parameter.add_(3)
    assert torch.equal(subspace.regularizer(), before)
    with torch.no_grad():
        model.named.parametrizations.left.original1.add_(3)
    assert not torch.equal(subspace.regularizer(), before)


@pytest.mark.parametrize(
    ("config", "pairs"),
    [
        (SubspaceConfig("line"), {(0, 1)}),
        (SubspaceConfig("curve"), {(0, 2)}),
        (SubspaceConfig("curve", penalize_bend=True), {(0, 1), (0, 2), (1, 2)}),
        (SubspaceConfig("simplex", 4), {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_the_pair_is_drawn_from_the_shapes(config: SubspaceConfig, pairs: set[tuple[int, int]]) -> None:
    subspace = Subspace.attach(GoldenNetwork(), config, model_init=GoldenNetwork)
    values = {subspace.regularizer(pair=pair).item() for pair in pairs}
    assert len(values) == len(pairs)
    drawn = [subspace.regularizer(generator=draw_generator(0, step)).item() for step in range(60)]
    assert set(drawn) == values
    assert drawn == [subspace.regularizer(generator=draw_generator(0, step)).item() for step in range(60)]
