"""A walk in one pass equals recalibrating and evaluating plain networks one by one."""

import copy
import dataclasses
from pathlib import Path

import pytest
import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_geo.evaluation import recalibrate_norms
from hf_geo.evaluation.plans import plan_walk
from hf_geo.evaluation.walk import Walk, evaluate_models, walk
from hf_geo.subspaces import Subspace, SubspaceConfig
from tests.evaluation.test_calibration import calibration_metrics
from tests.processes import in_two
from tests.subspaces.cases import CASES, Case, GoldenNetwork, TiedLanguageModel


class CountingLoader:
    """Batches, and how often they were read."""

    def __init__(self, batches: list) -> None:
        self.batches, self.passes, self.read = batches, 0, 0

    def __iter__(self):
        self.passes += 1
        for batch in self.batches:
            self.read += 1
            yield batch


def data(batches: int = 3) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(6 + i, 3, 8, 8) + i, torch.randint(5, (6 + i,))) for i in range(batches)]


def trained(case: Case, layerwise: bool = False) -> Subspace:
    """Some network with spread-out predictions and statistics that fit no position."""
    subspace = Subspace.attach(GoldenNetwork(), case.config(layerwise=layerwise), model_init=GoldenNetwork)
    subspace.model(torch.randn(8, 3, 8, 8) * 3)
    with torch.no_grad():
        for name, parameter in subspace.model.named_parameters():
            if name.startswith("fc"):
                parameter.mul_(6)
    return subspace


def test_ensembles_of_logits_and_bins_of_the_calibration_error() -> None:
    models, batches = [GoldenNetwork().eval() for _ in range(2)], data()
    found = evaluate_models(models, batches, ensembles=[(0, 1)], bins=20, average="logits")
    with torch.no_grad():
        logits = torch.stack([torch.cat([model(x) for x, _ in batches]) for model in models])
    labels = torch.cat([y for _, y in batches])
    for row, p in zip(
        [*found.points, found.ensembles[0]], [*logits.softmax(-1), logits.mean(0).softmax(-1)], strict=True
    ):
        expected = calibration_metrics(p, labels, bins=20)
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def one_by_one(subspace: Subspace, position: Tensor, evaluation: list, recalibration: list) -> tuple[Tensor, Tensor]:
    """Probabilities of the plain network at a position, recalibrated by itself, and the labels."""
    plain = GoldenNetwork()
    plain.load_state_dict(subspace.folded_state_dict(position))
    recalibrate_norms(plain, recalibration)
    with torch.no_grad():
        logits = torch.cat([plain.eval()(x) for x, _ in evaluation])
    return logits.softmax(-1), torch.cat([y for _, y in evaluation])


@pytest.mark.parametrize(("batched", "layerwise"), [(False, True), (True, False)], ids=["loop-layerwise", "vmap-one"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_value_is_that_of_the_plain_networks(case: Case, layerwise: bool, batched: bool) -> None:
    subspace, evaluation, recalibration = trained(case, layerwise), data(), data(4)
    plan = plan_walk(subspace, 7)
    found = walk(
        subspace, plan.coefficients(subspace), evaluation, recalibration, ensembles=plan.ensembles, batched=batched
    )
    probabilities = []
    for row, position in zip(found.points, plan.positions, strict=True):
        p, labels = one_by_one(subspace, position, evaluation, recalibration)
        expected = calibration_metrics(p, labels)
        assert row == pytest.approx({**expected, "loss": expected["nll"]}, abs=1e-5)
        probabilities.append(p)
    assert len({round(row["nll"], 4) for row in found.points}) > len(found.points) // 2
    for row, members in zip(found.ensembles, plan.ensembles, strict=True):
        assert row["members"] == list(members)
        expected = calibration_metrics(torch.stack([probabilities[m] for m in members]).mean(0), labels)
        if len(members) == 2:
            first, second = (probabilities[m] for m in members)
            expected["total_variation"] = (first - second).abs().sum(-1).mean().item() / 2
            expected["disagreement"] = (first.argmax(-1) != second.argmax(-1)).double().mean().item()
        assert {k: v for k, v in row.items() if k != "members"} == pytest.approx(expected, abs=1e-5)
    assert (found.samples, found.recalibration_samples) == (21, 30)


def test_positions_at_once_share_one_pass_over_each_data_set_and_change_no_value() -> None:
    subspace, evaluation, recalibration = trained(CASES[0]), data(), data(5)
    plan = plan_walk(subspace, 9)
    results, passes = [], []
    for limit in (32, 4, 2):
        loaders = CountingLoader(evaluation), CountingLoader(recalibration)
        settings = {"ensembles": plan.ensembles, "recalibration_batches": 2, "positions_at_once": limit}
        results.append(walk(subspace, plan.coefficients(subspace), *loaders, **settings))
        passes.append([(loader.passes, loader.read) for loader in loaders])
    assert results[0] == results[1] == results[2]
    assert passes == [[(1, 3), (1, 2)], [(3, 9), (3, 6)], [(5, 15), (5, 10)]]


def test_the_model_is_left_at_the_centre_with_its_own_statistics_and_mode() -> None:
    subspace = trained(CASES[0])
    subspace.model.train()
    subspace.set_position(0.1)
    before = copy.deepcopy(subspace.model.state_dict())
    for batched in (False, True):
        walk(subspace, [torch.tensor([0.9, 0.1])], data(), data(), batched=batched)
        assert torch.equal(subspace.coefficients, torch.tensor([0.5, 0.5]))
        assert subspace.model.training
        assert all(torch.equal(value, before[name]) for name, value in subspace.model.state_dict().items())
        subspace.model(torch.randn(4, 3, 8, 8)).sum().backward()
        before = copy.deepcopy(subspace.model.state_dict())


def test_without_recalibration_the_models_own_statistics_are_used() -> None:
    subspace, evaluation = trained(CASES[0]), data()
    found = walk(subspace, [torch.tensor([0.3, 0.7])], evaluation, None)
    plain = GoldenNetwork().eval()
    plain.load_state_dict(subspace.folded_state_dict(0.7))
    logits = torch.cat([plain(x) for x, _ in evaluation])
    expected = F.cross_entropy(logits, torch.cat([y for _, y in evaluation])).item()
    assert found.points[0]["loss"] == pytest.approx(expected, abs=1e-5)
    assert found.recalibration_samples == 0
    without_norms = Subspace.attach(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), SubspaceConfig(jitter=0.5))
    found = walk(without_norms, [torch.tensor([0.5, 0.5])], data(), data())
    assert (found.samples, found.recalibration_samples) == (21, 0)


def walk_part(rank: int, processes: int = 2) -> Walk:
    """The walk of a line with an ensemble, of which each process reads every other batch."""
    torch.manual_seed(0)
    subspace, evaluation = trained(CASES[0]), data()
    rows = [torch.tensor([1 - t, t]) for t in (0.0, 0.5, 1.0)]
    return walk(subspace, rows, evaluation[rank::processes], None, ensembles=[(0, 2)])


def test_processes_that_share_the_data_measure_all_of_it(tmp_path: Path) -> None:
    first, second = in_two(lambda rank: dataclasses.asdict(walk_part(rank)), tmp_path)
    expected = walk_part(0, processes=1)
    assert first == second and first["samples"] == expected.samples == 21
    rows = zip(first["points"] + first["ensembles"], expected.points + expected.ensembles, strict=True)
    for found, row in rows:
        assert found == {name: pytest.approx(value, abs=1e-6) for name, value in row.items()}


def test_a_language_model_is_scored_on_next_tokens() -> None:
    subspace = Subspace.attach(TiedLanguageModel(), SubspaceConfig(), model_init=TiedLanguageModel)
    ids = [torch.randint(11, (4, 6)) for _ in range(3)]
    labels = [x.clone() for x in ids]
    labels[0][:, 3] = -100
    batches = list(zip(ids, labels, strict=True))
    found = walk(subspace, [torch.tensor([0.3, 0.7])], batches, None, causal=True)
    subspace.set_position(0.7)
    logits = torch.cat([subspace.model(x)[:, :-1].flatten(0, 1) for x in ids])
    expected = F.cross_entropy(logits, torch.cat([y[:, 1:].flatten() for y in labels])).item()
    assert found.points[0]["loss"] == pytest.approx(expected, abs=1e-5)
    assert found.samples == 3 * 4 * 5 - 4


class Evolved(nn.Module):
    """An instance norm, and a norm that is not torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)
        self.instance = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
        self.norm = timm.layers.EvoNorm2dB0(8)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.instance(self.convolution(x))).mean((2, 3)))


class Lstm(nn.Module):
    """vmap has no rule for it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.lstm, self.out = nn.BatchNorm2d(3), nn.LSTM(24, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(self.norm(x).transpose(1, 2).flatten(2))[0][:, -1])


class Guarded(GoldenNetwork):
    """Looks at values, from its second batch on, after it has run its first norm."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.bn1(self.conv1(x))
        if len(x) > 6 and hidden.abs().max() > 1e4:
            return hidden.mean((2, 3))[:, :1].expand(-1, 5)
        return super().forward(x)


@pytest.mark.parametrize(
    ("network", "by_one"),
    [(Evolved, False), (Lstm, True), (Guarded, True)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_networks_that_vmap_cannot_run_are_evaluated_one_by_one_which_is_said_once(
    network: type[nn.Module], by_one: bool, caplog: pytest.LogCaptureFixture
) -> None:
    subspace = Subspace.attach(network(), SubspaceConfig(), model_init=network)
    rows = [torch.tensor([1 - t, t], dtype=torch.float64) for t in (0.0, 0.3, 0.6, 1.0)]
    settings = {"loader": data(), "recalibration": data(4), "ensembles": [(0, 1)], "positions_at_once": 2}
    singly = walk(subspace, rows, batched=False, **settings)
    assert not caplog.messages
    together = walk(subspace, rows, batched=True, **settings)
    assert len(caplog.messages) == by_one
    assert all(message.startswith("Positions are evaluated one by one: vmap raised") for message in caplog.messages)
    assert (together.samples, together.recalibration_samples) == (singly.samples, singly.recalibration_samples)
    for found, expected in zip(together.points + together.ensembles, singly.points + singly.ensembles, strict=True):
        assert {**found, "members": 0} == pytest.approx({**expected, "members": 0}, abs=1e-5)
    assert len({round(row["nll"], 5) for row in singly.points}) == 4


def test_a_fault_of_the_network_itself_is_not_hidden_by_the_fall_back() -> None:
    subspace = trained(CASES[0])
    with pytest.raises(RuntimeError, match="expected input"):
        walk(subspace, [torch.tensor([0.5, 0.5])], [(torch.randn(2, 4, 8, 8), torch.zeros(2))], None, batched=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ensembles": [(0, 1), (1, 2)], "positions_at_once": 2}, "--positions_at_once must be at least 3, not 2"),
        ({"positions_at_once": 0}, "positions_at_once is one or more; got 0"),
        ({"loader": []}, "the evaluation set is empty"),
        ({"loader": [torch.randn(2, 3, 8, 8)]}, "has no labels"),
    ],
    ids=["ensemble", "none_at_once", "no_data", "no_labels"],
)
def test_bad_input(arguments: dict, message: str) -> None:
    subspace = trained(CASES[0])
    rows = [torch.tensor([1 - t, t]) for t in (0.0, 0.5, 1.0)]
    with pytest.raises(ValueError, match=message):
        walk(subspace, rows, **{"loader": data(), "recalibration": data(), **arguments})
