"""Averages of networks, the segment between two, and the trust in them, against the same done by hand."""

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hf_geo.evaluation import recalibrate_norms
from hf_geo.evaluation.merging import average, barrier, first_difference, greedy_soup, interpolate
from hf_geo.evaluation.report import select_position
from hf_geo.evaluation.segment import walk_segment
from hf_geo.evaluation.trust import TrustData
from hf_geo.evaluation.walk import Walk, evaluate_models
from hf_geo.metrics.trust import adaptive_calibration_error, fit_temperature, risk_coverage, unknown_inputs
from tests.evaluation.test_walk import Evolved, data
from tests.processes import in_two
from tests.subspaces.cases import GoldenNetwork, TiedLanguageModel


def trained(network: type[nn.Module], seed: int) -> nn.Module:
    """A network after a few updates, with its own norm statistics."""
    torch.manual_seed(seed)
    model = network().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in data(4):
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_an_average_is_the_weighted_sum_and_a_network_of_weight_one_comes_back_bit_for_bit() -> None:
    numbers = {"w": torch.randn(3, 4, 3), "half": torch.randn(3, 5).bfloat16(), "n": torch.arange(3)}
    numbers["z"] = torch.randn(3, 2, dtype=torch.complex64)
    states = [{name: rows[i].clone() for name, rows in numbers.items()} for i in range(3)]
    states[1]["w"][0] = -0.0
    mean = average(states)
    assert {name: value.dtype for name, value in mean.items()} == {name: v.dtype for name, v in states[0].items()}
    for name in ("w", "half", "z"):
        expected = sum(state[name].to(torch.complex128) for state in states) / 3
        assert torch.equal(mean[name], (expected if name == "z" else expected.real).to(mean[name].dtype))
    assert mean["n"] == 0
    torch.testing.assert_close(
        average(states, [0.5, -0.25, 0.75])["w"],
        sum(c * s["w"] for c, s in zip((0.5, -0.25, 0.75), states, strict=True)),
    )
    for position in (0, 1):
        found = interpolate(*states[:2], position)
        for name in ("w", "half"):
            same = found[name], states[position][name]
            assert same[0].view(torch.uint8).tolist() == same[1].view(torch.uint8).tolist()  # -0.0 too
        assert found["w"].data_ptr() != states[position]["w"].data_ptr()


@pytest.mark.parametrize(
    ("other", "coefficients", "message"),
    [
        ({"a": torch.zeros(2)}, None, "for 'b' the first has shape [3], the other no such tensor"),
        ({"a": torch.zeros(2), "b": torch.zeros(4)}, None, "for 'b' the first has shape [3], the other shape [4]"),
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, [0.5, 0.6], "sum to one, but [0.5, 0.6] sum to 1.1"),
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, [1.0], "There are 1 coefficients for 2 networks"),
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, [math.nan, 0.5], "[nan, 0.5] sum to nan"),
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, [math.inf, 0.5], "[inf, 0.5] sum to inf"),
    ],
)
def test_what_has_no_average_is_refused(other: dict, coefficients: list | None, message: str) -> None:
    with pytest.raises(ValueError) as error:
        average([{"a": torch.zeros(2), "b": torch.zeros(3)}, other], coefficients)
    assert message in str(error.value)


def test_quantized_weights_have_no_average_and_equal_indices_are_kept() -> None:
    codes = torch.arange(6, dtype=torch.uint8)
    assert torch.equal(average([{"i": codes}, {"i": codes.clone()}])["i"], codes)
    with pytest.raises(ValueError, match=r"'i' holds different torch.uint8 values, as quantized weights do"):
        average([{"i": codes}, {"i": codes.flip(0)}])
    assert first_difference({"i": codes}, {"i": codes.flip(0)}) is None


def test_the_barrier_is_the_largest_error_minus_the_mean_of_the_ends() -> None:
    assert barrier([0.1, 0.4, 0.9, 0.3]) == pytest.approx(0.9 - 0.2)
    assert barrier([0.2, 0.1, 0.2]) == 0
    assert barrier([0.1, 0.05, 0.3]) == pytest.approx(0.1)  # the higher end is part of the way
    for values in ([1, math.nan, 2], [1, 2, math.nan], [math.inf, 2, math.inf]):
        assert barrier(values) == math.inf


@pytest.mark.parametrize("higher", [True, False])
def test_nan_is_the_worst_score(higher: bool) -> None:
    states = [{"w": torch.tensor([value])} for value in (math.nan, 3.0, math.nan, 3.0)]
    members, best = greedy_soup(states, lambda state: state["w"].item(), higher_is_better=higher)
    assert (members, best) == ([1, 3], 3)
    points = [{"validation_loss": loss} for loss in (math.nan, 2.0, math.inf, 1.0)]
    assert select_position({"points": points}) == points[3]


@pytest.mark.parametrize("higher", [True, False])
def test_a_greedy_soup_is_at_least_as_good_as_its_best_member_and_as_the_recipe_makes_it(higher: bool) -> None:
    target, sign = torch.zeros(6), -1 if higher else 1
    states = [{"w": torch.randn(6) + 0.3} for _ in range(7)]

    def score(state: dict[str, Tensor]) -> float:
        return sign * (state["w"] - target).square().sum().item()

    members, best = greedy_soup(states, score, higher_is_better=higher)
    assert best == score(average([states[i] for i in members]))
    order = sorted(range(7), key=lambda i: abs(score(states[i])))
    kept: list[int] = []
    for index in order:  # recipe 1 of the paper, on the distances
        tried = torch.stack([states[i]["w"] for i in (*kept, index)]).double().mean(0).float()
        if not kept or tried.square().sum() <= torch.stack([states[i]["w"] for i in kept]).mean(0).square().sum():
            kept.append(index)
    assert members == kept and 1 < len(members) < 7
    assert abs(best) <= min(abs(score(state)) for state in states)


@pytest.mark.parametrize("network", [GoldenNetwork, Evolved], ids=["batch norm", "instance norm and EvoNorm"])
def test_between_two_networks_are_their_averages_and_at_the_ends_the_networks_themselves(network) -> None:
    models = [trained(network, seed) for seed in (0, 1)]
    states = [copy.deepcopy(model.state_dict()) for model in models]
    evaluation, recalibration = data(), data(5)
    own = evaluate_models(models, evaluation).points
    for batches in (recalibration, None):
        found = walk_segment(network(), *states, [0.0, 0.3, 1.0], evaluation, batches, recalibration_batches=4)
        assert [found.points[0], found.points[2]] == own  # exactly
        between = network()
        between.load_state_dict(interpolate(*states, 0.3))
        if batches:
            assert found.recalibration_samples == recalibrate_norms(between, batches, 4) == 30
        expected = evaluate_models([between], evaluation).points[0]
        assert found.points[1] == pytest.approx(expected, abs=1e-5)
    assert abs(own[0]["loss"] - own[1]["loss"]) > 1e-3
    assert all(torch.equal(value, states[0][name]) for name, value in models[0].state_dict().items())


def test_the_segment_of_a_tied_language_model_and_what_has_none() -> None:
    first, second = TiedLanguageModel(), TiedLanguageModel()
    ids = torch.randint(11, (4, 6))
    found = walk_segment(first, first.state_dict(), second.state_dict(), [0, 1], [(ids, ids)], None, causal=True)
    assert found.points == evaluate_models([first, second], [(ids, ids)], causal=True).points
    model = GoldenNetwork()
    with pytest.raises(ValueError, match="are equal"):
        walk_segment(model, model.state_dict(), copy.deepcopy(model.state_dict()), [0, 1], data(), None)
    model.register_buffer("scale", torch.ones(2))
    other = {**copy.deepcopy(model.state_dict()), "scale": torch.zeros(2)}
    with pytest.raises(ValueError, match="differ in 'scale'"):
        walk_segment(model, model.state_dict(), other, [0, 1], data(), None)


def splits(shift: int = 0) -> list[list[tuple[Tensor, Tensor]]]:
    """Batches to evaluate, to validate and of another data set; the labels are drawn from a network's probabilities."""
    teacher = trained(GoldenNetwork, 1)
    torch.manual_seed(7)
    with torch.no_grad():
        first, *rest = (
            [(x, torch.multinomial((3 * teacher(x)).softmax(-1), 1)[:, 0]) for x, _ in data(n)] for n in (4, 6, 2)
        )
    return [[(x, (y + shift) % 5) for x, y in first], *rest]


def measured(rank: int = 0, processes: int = 1, shift: int = 0) -> Walk:
    """Trust in three networks of a segment, of which each process reads every other batch."""
    states = [trained(GoldenNetwork, seed).state_dict() for seed in (0, 1)]
    evaluation, validation, other = (split[rank::processes] for split in splits(shift))
    trust = TrustData(validation, other)
    return walk_segment(GoldenNetwork(), *states, [0.0, 0.5, 1.0], evaluation, None, trust=trust)


def test_trust_is_that_of_the_predictions_and_its_temperature_knows_validation_alone() -> None:
    found = measured().points[2]
    model, parts = trained(GoldenNetwork, 1), splits()
    with torch.no_grad():
        (logs, labels), (valid, answers), (others, _) = (
            (torch.cat([model(x) for x, _ in part]).log_softmax(-1), torch.cat([y for _, y in part])) for part in parts
        )
    temperature = fit_temperature(valid, answers)
    confidence, right = logs.exp().max(-1).values.double().numpy(), (logs.argmax(-1) == labels).numpy()
    expected = {
        "temperature": temperature,
        "validation_loss": nn.functional.nll_loss(valid, answers).item(),
        "adaptive_ece": adaptive_calibration_error(confidence, right),
        "aurc": risk_coverage(confidence, right).mean(),
        "scaled_nll": nn.functional.cross_entropy(logs / temperature, labels).item(),
        **unknown_inputs(confidence, others.exp().max(-1).values.double().numpy()),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert found["risk_coverage"][-1] == pytest.approx((1.0, 1 - found["accuracy"]))
    for key in ("reliability", "scaled_reliability"):
        counts, accuracies, _ = zip(*found[key], strict=True)
        assert np.dot(counts, accuracies) / sum(counts) == pytest.approx(found["accuracy"])
    relabelled = measured(shift=1).points[2]
    assert all(relabelled[name] == found[name] for name in ("temperature", "validation_loss"))
    assert relabelled["scaled_nll"] != found["scaled_nll"]


def test_processes_that_share_the_data_measure_the_same_trust(tmp_path: Path) -> None:
    first, second = in_two(lambda rank: dataclasses.asdict(measured(rank, 2)), tmp_path)
    expected = measured()
    assert first == second and first["samples"] == expected.samples
    names = ("temperature", "aurc", "ood_auroc", "scaled_ece", "validation_loss")
    for found, row in zip(first["points"], expected.points, strict=True):
        assert 0.1 < row["temperature"] < 10
        assert [found[name] for name in names] == pytest.approx([row[name] for name in names], abs=1e-3)
