"""The authors' layers and ours give the same numbers, float64."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from hf_geo.subspaces import Subspace, SubspaceConfig
from tests.paths import GOLDEN
from tests.subspaces.cases import CASES, GOLDEN_ROWS, GoldenNetwork

TOLERANCE = {"rtol": 0, "atol": 1e-10}


def _order(kind: str, num_points: int) -> tuple[int, ...]:
    return next(case.golden for case in CASES if (case.kind, case.num_points) == (kind, num_points))


def _authors_name(name: str, golden_index: int) -> str:
    return f"{name}{golden_index or ''}"


@pytest.mark.parametrize("row", GOLDEN_ROWS, ids=lambda row: row["case"])
def test_golden(row: dict) -> None:
    golden = load_file(GOLDEN / "subspaces" / row["file"])
    order = _order(row["kind"], row["num_points"])
    model = GoldenNetwork(row["channels"], row["classes"]).double()
    names = [name for name, _ in model.named_parameters()]
    points = {
        ours: {n: golden[f"param.{_authors_name(n, theirs)}"] for n in names} for ours, theirs in enumerate(order)
    }
    config = SubspaceConfig(row["kind"], row["num_points"], layerwise=row["layerwise"], beta=row["beta"])
    subspace = Subspace.attach(model, config, points=points)
    assert subspace.layer_names == row["layers"]

    coefficients = golden["coefficients"][:, list(order)]
    subspace.set_coefficients(coefficients if row["layerwise"] else coefficients[0])
    output = model(golden["input"])
    cross_entropy = F.cross_entropy(output, golden["labels"])
    ours = [order.index(theirs) for theirs in row["regularized_pair"]]
    loss = cross_entropy + config.beta * subspace.regularizer(pair=tuple(ours))
    loss.backward()

    torch.testing.assert_close(output, golden["output"], **TOLERANCE)
    torch.testing.assert_close(cross_entropy, golden["cross_entropy"].squeeze(), **TOLERANCE)
    torch.testing.assert_close(loss, golden["loss"].squeeze(), **TOLERANCE)
    for first, their_first in enumerate(order):
        for second, their_second in enumerate(order):
            value = subspace.regularizer(pair=(first, second))
            torch.testing.assert_close(value, golden["cos_squared"][their_first, their_second], **TOLERANCE)
    parameters = dict(model.named_parameters())
    assert len(parameters) == len(names) * config.num_points
    for name in names:
        layer, _, tensor = name.rpartition(".")
        for index, theirs in enumerate(order):
            grad = parameters[f"{layer}.parametrizations.{tensor}.original{index}"].grad
            torch.testing.assert_close(grad, golden[f"grad.{_authors_name(name, theirs)}"], **TOLERANCE)
    statistics = [name for name in golden if name.startswith("buffer.")]
    assert len(statistics) == 4
    for name in statistics:
        torch.testing.assert_close(model.get_buffer(name.removeprefix("buffer.")), golden[name], **TOLERANCE)
