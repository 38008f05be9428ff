"""A walk's data, table, card section and pictures."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from hf_geo.evaluation.plans import Plan, plan_walk
from hf_geo.evaluation.report import add_to_card, as_data, as_table, draw, name_positions, shift_table
from hf_geo.evaluation.walk import Walk, walk
from hf_geo.subspaces import Subspace, SubspaceConfig
from tests.subspaces.cases import GoldenNetwork

CONFIGS = {
    "line": SubspaceConfig("line"),
    "curve_layerwise": SubspaceConfig("curve", layerwise=True),
    "simplex3": SubspaceConfig("simplex", 3),
    "simplex4": SubspaceConfig("simplex", 4, layerwise=True),
}
FIGURES = {
    "line": {"walk.png"},
    "curve_layerwise": {"walk.png"},
    "simplex3": {"distances.png", "triangle.png"},
    "simplex4": {"distances.png"},
}


def data() -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(8, 3, 8, 8), torch.randint(5, (8,))) for _ in range(2)]


@pytest.fixture(params=CONFIGS)
def walked(request: pytest.FixtureRequest) -> tuple[str, SubspaceConfig, Plan, Walk]:
    config = CONFIGS[request.param]
    subspace = Subspace.attach(GoldenNetwork(), config, model_init=GoldenNetwork)
    plan = plan_walk(subspace, 7)
    found = walk(subspace, plan.coefficients(subspace), data(), data(), ensembles=plan.ensembles)
    return request.param, config, plan, found


def test_data_are_json_and_the_table_has_a_row_for_each_network_and_ensemble(walked: tuple) -> None:
    _, config, plan, found = walked
    names = name_positions(plan, config)
    assert len(set(names)) == len(plan.positions)
    data = json.loads(json.dumps(as_data(found, names, [p.tolist() for p in plan.positions])))
    assert [row["accuracy"] for row in data["points"]] == [row["accuracy"] for row in found.points]
    for row, source in zip(data["ensembles"], found.ensembles, strict=True):
        assert row["member_accuracies"] == [found.points[m]["accuracy"] for m in source["members"]]
    lines = as_table(data).splitlines()
    assert len(lines) == 2 + len(found.points) + len(found.ensembles)
    assert len({len(line) for line in (lines[0], *lines[2:])}) == 1
    shown = f"{100 * found.points[0]['accuracy']:.2f} %"
    assert lines[2].startswith(f"| {names[0]} ")
    assert shown in lines[2]


def test_pictures_are_drawn(walked: tuple, tmp_path: Path) -> None:
    name, config, plan, found = walked
    data = as_data(found, name_positions(plan, config), [p.tolist() for p in plan.positions], config)
    figures = draw(json.loads(json.dumps(data)), tmp_path / "figures", r"a $\title{$")
    assert set(figures) == FIGURES[name]
    for file in figures:
        image = Image.open(tmp_path / "figures" / file).convert("RGB")
        assert min(image.size) > 300
        assert len(image.getcolors(10**6)) > 20


def test_the_ensemble_of_shifted_data_is_that_of_all_control_points(walked: tuple) -> None:
    _, config, plan, found = walked
    data = as_data(found, name_positions(plan, config), [p.tolist() for p in plan.positions], config)
    last = shift_table({**data, "shifts": [{"shift": "fog", "severity": 1, **data}]}).splitlines()[-1]
    ends = (0, 6) if config.shape.is_path else tuple(range(config.num_points))
    (accuracy,) = (row["accuracy"] for row in found.ensembles if tuple(row["members"]) == ends)
    assert last.split("|")[-3].strip() == f"{100 * accuracy:.2f} %"


def _colours(path: Path) -> set[tuple[int, int, int]]:
    return {colour for _, colour in Image.open(path).convert("RGB").getcolors(10**6)}


def test_the_ensemble_is_in_the_picture(tmp_path: Path) -> None:
    rows = [{"accuracy": a, "nll": nll, "ece": 0.1} for a, nll in ((0.5, 1.0), (0.7, None), (0.6, 2.0))]
    pair = {"members": [0, 2], "accuracy": 0.9, "nll": 0.5, "ece": 0.05}
    for folder, ensembles in (("with", [pair]), ("without", [])):
        data = as_data(Walk(rows, ensembles, 8, 8), ["0", "0.5", "1"], [0.0, 0.5, 1.0], SubspaceConfig())
        draw(data, tmp_path / folder)
    orange = (255, 127, 14)
    assert orange in _colours(tmp_path / "with" / "walk.png")
    assert orange not in _colours(tmp_path / "without" / "walk.png")


@pytest.mark.parametrize("text", ["# Card\n\n## How it was trained\n\nwell\n", "# Card\n"], ids=["ours", "other"])
def test_a_later_walk_replaces_the_earlier_in_a_card(text: str) -> None:
    first = add_to_card(text, {"figures/a.png": "A"}, "| table |", "First note.")
    second = add_to_card(first, {"figures/b.png": "B"}, "| other |", "Second note.")
    assert "![A](figures/a.png)" in first
    assert "First note." in first
    assert second == first.replace("![A](figures/a.png)", "![B](figures/b.png)").replace(
        "| table |", "| other |"
    ).replace("First note.", "Second note.")
    for line in text.splitlines():
        assert line in second.splitlines()
    if "trained" in text:
        assert second.index("Along the subspace") < second.index("How it was trained")
