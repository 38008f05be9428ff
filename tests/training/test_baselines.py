"""Adam, LARS and LAMB by `--optim`: their first step by hand, their settings, and what they refuse."""

import numpy as np
import pytest
from transformers import TrainerCallback

from hf_geo import GeoTrainingArguments
from hf_geo.training.methods import SHORT_NAMES, find_method
from tests.training.problems import Normalized, make_trainer

LR, DECAY = 0.01, 0.1


def adam(x: np.ndarray, g: np.ndarray, decay: float) -> np.ndarray:
    """Kingma and Ba 2015 after one step: both moments are their corrections away from g and g^2."""
    g = g + decay * x
    return x - LR * g / (np.abs(g) + 1e-8)


def lars(x: np.ndarray, g: np.ndarray, decay: float) -> np.ndarray:
    """You et al. 2017, equation (6), for weights that decay; the others are not scaled."""
    local = 0.001 * np.linalg.norm(x) / (np.linalg.norm(g) + decay * np.linalg.norm(x)) if decay else 1.0
    return x - LR * local * (g + decay * x)


def lamb(x: np.ndarray, g: np.ndarray, decay: float) -> np.ndarray:
    """You et al. 2020, algorithm 2, with phi the identity; weights that do not decay are not scaled."""
    r = g / (np.abs(g) + 1e-6) + decay * x
    return x - LR * (np.linalg.norm(x) / np.linalg.norm(r) if decay else 1.0) * r


@pytest.mark.parametrize("rule", [adam, lars, lamb])
def test_the_first_step_is_the_papers(tmp_path, rule) -> None:
    trainer = make_trainer(
        tmp_path, Normalized(), optim=rule.__name__, learning_rate=LR, weight_decay=DECAY, max_grad_norm=0, max_steps=1
    )
    seen = {}

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
            seen.update({name: (p.detach().numpy().copy(), p.grad.numpy()) for name, p in model.named_parameters()})

    trainer.add_callback(Look())
    trainer.train()
    assert type(trainer.optimizer.optimizer) is find_method(rule.__name__).cls
    for name, p in trainer.model.named_parameters():
        expected = rule(*seen[name], decay=DECAY if name in ("hidden.weight", "out.weight") else 0.0)
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_settings_are_typed_and_defaults_the_methods(tmp_path, name: str) -> None:
    args = GeoTrainingArguments(str(tmp_path), optim=name)
    assert args.optim == args.to_dict()["optim"] == name
    assert args.learning_rate == find_method(name).lr
    trainer = make_trainer(tmp_path, optim=name, optim_args="eps=0.5")
    trainer.create_optimizer()
    assert {group["eps"] for group in trainer.optimizer.param_groups} == {0.5}
    with pytest.raises(ValueError, match=f"{name} has no setting 'esp': did you mean 'eps'"):
        make_trainer(tmp_path, optim=name, optim_args="esp=0.5")
    with pytest.raises(ValueError, match=rf"'rest' apart, which is no module of the model, and {name} makes no other"):
        make_trainer(tmp_path, optim=name, optim_args="rest.eps=0.5").create_optimizer()
