"""An update of two networks against each other is a step of each, however it is divided; both are logged, stopped and refused."""

import errno
from pathlib import Path

import pytest
import torch
from transformers import Trainer

from hf_geo import SubspaceConfig
from hf_geo.optim import Fromage
from hf_geo.training.nonfinite import NonFiniteTrainingError
from tests.training.adversaries import SAMPLES, UPDATES, Pair, flat, make_trainer, samples
from tests.training.launching import launch_or_fail

ADAM = {"betas": (0.0, 0.9)}
ROWS = {  # settings of the Trainer; the optimizer's class, its rates of generator and discriminator, and more of its settings
    "sgd": ({"optim": "sgd", "learning_rate": 0.1}, torch.optim.SGD, (0.1, 0.1), {}),
    "two rates": (
        {"optim": "sgd", "learning_rate": 0.1, "optim_args": "momentum=0.5,discriminator.lr=0.4"},
        torch.optim.SGD, (0.1, 0.4), {"momentum": 0.5},
    ),
    "a baseline": (
        {"optim": "adam", "learning_rate": 0.1, "optim_args": "generator.lr=0.01,betas=0.0:0.9"},
        torch.optim.Adam, (0.01, 0.1), ADAM,
    ),
    "fromage": ({"optim": "fromage", "learning_rate": 0.1, "optim_args": "discriminator.lr=0.02"}, Fromage, (0.1, 0.02), {}),
    "micro-batches of 4 and 2": (
        {"optim": "adam", "learning_rate": 0.1, "optim_args": "betas=0.0:0.9", "per_device_train_batch_size": 4,
         "gradient_accumulation_steps": 2},
        torch.optim.Adam, (0.1, 0.1), ADAM,
    ),
    "clipped": ({"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.05}, torch.optim.SGD, (0.1, 0.1), {}),
}  # fmt: skip


def expected(row: str) -> torch.Tensor:
    """The weights after updates by two optimizers, each of one network."""
    settings, cls, rates, more = ROWS[row]
    model, data = Pair(), samples()
    pixels, labels, latents = (torch.stack([torch.as_tensor(s[key]) for s in data]) for key in data[0])
    networks = (model.generator, model.discriminator)
    generator, discriminator = (cls(n.parameters(), lr=rate, **more) for n, rate in zip(networks, rates, strict=True))
    for _ in range(UPDATES):
        steps = ((discriminator, networks[1], pixels, latents), (generator, networks[0], None, -latents))
        for optimizer, network, real, z in steps:
            model.zero_grad()
            model(real, labels, z)["loss"].backward()
            if settings.get("max_grad_norm"):
                torch.nn.utils.clip_grad_norm_(network.parameters(), settings["max_grad_norm"])
            optimizer.step()
    return flat(model)


@pytest.mark.parametrize("row", ROWS)
def test_an_update_is_a_step_of_each_network_by_its_own_optimizer(row: str, tmp_path) -> None:
    trainer = make_trainer(tmp_path, **{"max_grad_norm": 0.0, **ROWS[row][0]})
    trainer.train()
    torch.testing.assert_close(flat(trainer.model), expected(row), rtol=1e-9, atol=1e-11)


def test_both_networks_are_logged(tmp_path) -> None:
    trainer = make_trainer(tmp_path, optim="fromage", optim_args="discriminator.lr=0.02", log_geometry=True)
    trainer.train()
    first = trainer.state.log_history[0]
    assert (first["lr/rest"], first["lr/discriminator.rest"]) == (0.01, 0.02)
    for name in ("generator.0.weight", "discriminator.2.weight"):
        rate = first["lr/discriminator.rest" if "discriminator" in name else "lr/rest"]
        assert first[f"geometry/relative_update/{name}"] == pytest.approx(rate, rel=0.05)
    model, data = Pair(), samples()
    pixels, labels, latents = (torch.stack([torch.as_tensor(s[key]) for s in data]) for key in data[0])
    assert first["loss"] == pytest.approx(model(pixels, labels, latents)["loss"].item(), rel=1e-3)
    assert first["generator_loss"] != first["loss"]


def test_losses_that_are_not_finite_end_the_run(tmp_path) -> None:
    broken = samples()
    broken[0]["pixel_values"] = broken[0]["pixel_values"] * torch.nan
    with pytest.raises(NonFiniteTrainingError, match="not finite in 2 updates in a row"):
        make_trainer(tmp_path, broken, optim="sgd", max_nonfinite_steps=2, max_steps=9).train()


def test_what_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="alig takes steps for a loss that falls to zero"):
        make_trainer(tmp_path, optim="alig")
    with pytest.raises(ValueError, match="A subspace is of one network with one loss"):
        make_trainer(tmp_path, optim="sgd", subspace=SubspaceConfig("line"))
    with pytest.raises(
        ValueError, match=r"sets discriminator.momentun, but the parameter groups of sgd have no such setting"
    ):
        make_trainer(tmp_path, optim="sgd", optim_args="discriminator.momentun=0.5").create_optimizer()


@pytest.mark.parametrize("engine", ["fsdp", "deepspeed"])
def test_engines_that_divide_one_network_are_refused(engine: str, tmp_path, monkeypatch) -> None:
    name = "create_accelerator_and_postprocess"
    create = getattr(Trainer, name)

    def create_sharded(trainer: Trainer) -> None:
        create(trainer)
        setattr(trainer, f"is_{engine}_enabled", True)

    monkeypatch.setattr(Trainer, name, create_sharded)
    with pytest.raises(ValueError, match="here two networks step in turn: use DDP"):
        make_trainer(tmp_path, optim="sgd")


def test_a_disk_that_refuses_a_picture_costs_the_picture_alone(tmp_path, monkeypatch, caplog) -> None:
    def refuse(*args, **kwargs) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hf_geo.training.adversarial.trainer.write_grid", refuse)
    trainer = make_trainer(tmp_path, optim="sgd")
    assert "eval_loss" in trainer.evaluate(samples())
    assert "The picture of samples at update 0 is left out: no space is left on the disk" in caplog.text


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path) -> None:
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        launch_or_fail(Path(__file__).with_name("adversaries.py"), folder, SAMPLES // processes, processes=processes)
    one, two = (torch.load(tmp_path / name / "weights.pt") for name in ("1", "2"))
    torch.testing.assert_close(two, one, rtol=0, atol=1e-5)
