"""A subspace inside GeoTrainer: where batches run, what is added to the loss, evaluation at the centre, resume."""

from itertools import combinations

import pytest
import torch
from torch import nn

from hf_geo import GeoTrainer, Subspace, SubspaceConfig
from hf_geo.subspaces import draw_generator, split_batch
from tests.training.problems import Normalized, flat, make_problem, make_trainer


def start(folder, model=None, subspace=None, **settings) -> GeoTrainer:
    subspace = SubspaceConfig("line", jitter=0.5) if subspace is None else subspace
    return make_trainer(folder, model or Normalized(), subspace=subspace, **settings)


def test_one_update_is_the_papers(tmp_path) -> None:
    """By hand: the loss at the drawn position plus beta times the squared cosine of the ends, one step of SGD."""
    config = SubspaceConfig("line", jitter=0.5, beta=0.7)
    trainer = start(
        tmp_path, make_problem("points")[0], config, optim="sgd", learning_rate=0.1, max_steps=1, max_grad_norm=0.0
    )
    model, _ = make_problem("points")
    subspace = Subspace.attach(model, config, seed=trainer.args.seed)
    batch = next(iter(trainer.get_train_dataloader()))
    subspace.sample(draw_generator(trainer.args.seed, 0, 0, 0))
    loss = model(**batch)["loss"] + 0.7 * subspace.regularizer(pair=(0, 1))
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    expected = torch.cat([(p - 0.1 * g).flatten() for p, g in zip(model.parameters(), gradients, strict=True)])
    trainer.train()
    torch.testing.assert_close(flat(trainer.model), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["alig", "sgdg"])
def test_a_resumed_subspace_ends_bit_identical(tmp_path, name: str) -> None:
    def trained(folder, checkpoint=None):
        trainer = start(
            tmp_path / folder, optim=name, save_strategy="steps", save_steps=2, gradient_accumulation_steps=2
        )
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer.model.state_dict()

    unbroken = trained("whole")
    resumed = trained("resumed", str(tmp_path / "whole" / "checkpoint-2"))
    assert [key for key in unbroken if not torch.equal(unbroken[key], resumed[key])] == []


def test_evaluation_is_at_the_centre_and_leaves_the_statistics(tmp_path) -> None:
    trainer = start(tmp_path, optim="fromage", eval_strategy="steps", eval_steps=2)
    trainer.train()
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    shown = trainer.evaluate()["eval_loss"]
    assert all(torch.equal(before[key], value) for key, value in trainer.model.state_dict().items())
    centre = Normalized()
    centre.load_state_dict(trainer.subspace.folded_state_dict(0.5))
    centre.train()  # the statistics of all samples at once, which recalibration averages over batches
    data = trainer.train_dataset
    with torch.no_grad():
        direct = centre(
            torch.stack([data[i]["x"] for i in range(40)]), torch.stack([data[i]["labels"] for i in range(40)])
        )["loss"]
    assert shown == pytest.approx(direct.item(), abs=0.15)


def test_settling_takes_statistics_of_the_centre_for_good(tmp_path) -> None:
    trainer = start(tmp_path, optim="fromage")
    trainer.train()
    wandering = trainer.model.norm.running_mean.clone()
    trainer.finalize()
    settled = trainer.model.norm.running_mean.clone()
    trainer.evaluate()
    assert not torch.equal(wandering, settled) and torch.equal(settled, trainer.model.norm.running_mean)
    hidden = trainer.model.hidden(torch.stack([trainer.train_dataset[i]["x"] for i in range(40)]))
    torch.testing.assert_close(settled, hidden.mean(0).detach(), rtol=0, atol=1e-8)


def test_several_positions_a_batch(tmp_path) -> None:
    """By hand: each part of the samples at a position of its own, and each sample counts alike."""
    config = SubspaceConfig("simplex", num_points=3, num_samples=3, jitter=0.5, beta=0.0)
    trainer = start(tmp_path, make_problem("points")[0], config, optim="sgd", max_steps=1)
    batch = next(iter(trainer.get_train_dataloader()))
    generator, total, parts = draw_generator(trainer.args.seed, 0, 0, 0), 0.0, split_batch(batch, 3)
    assert [len(part["x"]) for part in parts] == [3, 3, 2]
    for part in parts:
        trainer.subspace.sample(generator)
        total += trainer.model(**part)["loss"].item() * len(part["x"])
    trainer.train()
    [shown] = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert shown == pytest.approx(total / 8, abs=1e-4)


def test_a_network_without_matrices_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="nothing to regularize"):
        start(tmp_path, nn.BatchNorm1d(8).double(), optim="fromage")


@pytest.mark.parametrize("kind", ["line", "curve", "simplex"])
def test_cosine_and_distance_of_the_points_are_logged(tmp_path, kind: str) -> None:
    config = SubspaceConfig(kind, num_points=3 if kind == "simplex" else None, jitter=0.5)
    trainer = start(tmp_path, subspace=config, optim="sgd", learning_rate=0.1, logging_steps=1, max_steps=2)
    trainer.train()
    weights = [name for name, parameter in Normalized().named_parameters() if parameter.ndim > 1]
    states = [trainer.subspace.point_state_dict(index) for index in range(trainer.subspace.config.num_points)]
    points = [torch.cat([state[name].flatten() for name in weights]) for state in states]
    expected = {}
    for i, j in combinations(range(len(points)), 2):
        expected[f"subspace/cosine/{i}-{j}"] = torch.cosine_similarity(points[i], points[j], dim=0).item()
        expected[f"subspace/distance/{i}-{j}"] = torch.dist(points[i], points[j]).item()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    shown = [{name: value for name, value in row.items() if name.startswith("subspace/")} for row in rows]
    assert shown[1] == pytest.approx(expected, abs=1e-12) and shown[0] != shown[1]
