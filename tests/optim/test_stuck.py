"""What will not train is said once, early and by name; what trains is passed over in silence."""

import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from hf_geo.optim import AliG, Fromage, create_optimizer
from tests.cases import make_gradient, make_params

pytestmark = pytest.mark.usefixtures("warnings_only")


@pytest.fixture
def warnings_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="hf_geo")


class Adapted(nn.Module):
    """A layer with an adapter as LoRA makes it, a bias at zero and a weight near it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 4)
        self.lora_A, self.lora_B = nn.Linear(6, 2, bias=False), nn.Linear(2, 4, bias=False)
        self.token = nn.Parameter(1e-6 * torch.randn(1, 1, 8))
        nn.init.zeros_(self.base.bias)
        nn.init.zeros_(self.lora_B.weight)


@pytest.mark.parametrize(
    ("p_bound", "stuck"), [(None, {"lora_B.weight", "token"}), (2.0, {"lora_B.weight", "token", "base.bias"})]
)
@pytest.mark.parametrize("way", ["create_optimizer", "named", "unnamed", "meta"])
def test_fromage_names_what_starts_at_zero(way: str, p_bound: float | None, stuck: set[str], caplog) -> None:
    model = Adapted().to("meta" if way == "meta" else "cpu")
    if way == "create_optimizer":
        optimizer = create_optimizer("fromage", model, p_bound=p_bound)
        assert "param_names" not in optimizer.param_groups[0]
    else:
        Fromage(model.named_parameters() if way == "named" else model.parameters(), p_bound=p_bound)
    if way == "meta":  # where there are no values yet
        assert not caplog.messages
        return
    (message,) = caplog.messages
    assert ("barely move" in message) == (p_bound is None)
    for name, p in model.named_parameters():
        words = f"a tensor of shape {tuple(p.shape)}" if way == "unnamed" else name
        assert (words in message) == (name in stuck)


@pytest.mark.parametrize(("init", "warned"), [(True, True), ("pissa", False)])
def test_fromage_names_lora_s_b_unless_it_starts_elsewhere(init, warned: bool, caplog) -> None:
    """The remedy that the warning names is one."""
    model = get_peft_model(
        nn.Sequential(nn.Linear(6, 4)), LoraConfig(r=2, target_modules=["0"], init_lora_weights=init)
    )
    create_optimizer("fromage", model)
    assert ("base_model.model.0.lora_B.default.weight" in caplog.text) == bool(caplog.messages) == warned


def test_a_long_list_of_names_is_cut(caplog) -> None:
    Fromage([(f"layer{i}", nn.Parameter(torch.zeros(2, 2))) for i in range(9)])
    assert "layer0, layer1, layer2 and 6 more" in caplog.text


LOSSES = {
    "negative at once": ([-0.5, 1.0], 1),
    "negative later": ([2.0, 1.0, -0.1, -0.2], 3),
    "zero from the start": ([0.0] * 6, 5),
    "of either sign": ([0.0, 0.3, -0.2], 3),
    "positive": ([3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], None),
    "not finite": ([torch.nan] * 6, None),
}


@pytest.mark.parametrize("bound", [0.0, -2.0])
@pytest.mark.parametrize("case", LOSSES)
def test_alig_says_when_the_loss_asks_for_no_step(case: str, bound: float, caplog) -> None:
    losses, warned_at = LOSSES[case]
    losses = [loss + bound for loss in losses]
    params = make_params()
    optimizer = AliG(params, lower_bound=bound)
    for index, param in enumerate(params):
        param.grad = make_gradient(param, index, 0)
    for number, loss in enumerate(losses, 1):
        given = torch.tensor(loss) if number % 2 else loss
        optimizer.step(lambda given=given: given)
        assert len(caplog.messages) == int(warned_at is not None and number >= warned_at)
    assert all("AliG takes no step" in message for message in caplog.messages)
