"""A network gets the same input from a batch of any usual form, also through wrappers."""

from collections import namedtuple
from dataclasses import dataclass

import peft
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from torch.optim.swa_utils import AveragedModel
from transformers import BatchEncoding

from hf_geo.evaluation import recalibrate_norms
from hf_geo.evaluation.batches import batch_size, inputs_of, labels_of

X, MASK, LABELS = torch.randn(6, 4) + 3, torch.ones(6, 4), torch.arange(6)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4, bias=False)
        self.norm = nn.BatchNorm1d(4)
        nn.init.eye_(self.linear.weight)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.norm(self.linear(x if mask is None else x * mask))


class Passing(nn.Module):
    """A wrapper whose forward hides what the network takes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *args, **kwargs) -> Tensor:
        return self.network(*args, **kwargs)


@dataclass
class Fields:
    index: Tensor
    x: Tensor
    labels: Tensor


Named = namedtuple("Named", ["index", "x", "label"])
Pair = namedtuple("Pair", ["data", "target"])
WITH_MORE = {"index": torch.arange(6), "x": X, "labels": LABELS, "names": ["a"] * 6}
FORMS = {
    "tensor": X,
    "tuple": (X, LABELS),
    "list": [X, LABELS],
    "mapping": WITH_MORE,
    "encoding": BatchEncoding(WITH_MORE),
    "mapping_and_labels": ({"x": X, "mask": MASK, "index": LABELS}, LABELS),
    "inputs_and_labels": ([X, MASK], LABELS),
    "one_mapping": (WITH_MORE,),
    "named": Named(torch.arange(6), X, LABELS),
    "named_and_labels": (Named(torch.arange(6), X, None), LABELS),
    "named_otherwise": Pair(X, LABELS),
    "dataclass": Fields(torch.arange(6), X, LABELS),
}
WRAPPERS = {
    "plain": lambda network: network,
    "averaged": AveragedModel,
    "compiled": lambda network: torch.compile(network, backend="eager"),
    "parallel": nn.DataParallel,
    "passing": lambda network: Passing(Passing(network)),
    "peft": lambda network: peft.get_peft_model(network, peft.LoraConfig(target_modules=["linear"])),
}


@pytest.mark.parametrize(
    ("wrapper", "form"), [*(("plain", form) for form in FORMS), *((wrapper, "mapping") for wrapper in WRAPPERS)]
)
def test_every_form_gives_the_same_statistics_through_wrappers_too(wrapper: str, form: str) -> None:
    model = WRAPPERS[wrapper](Network())
    empty = (X[:0], LABELS[:0])
    assert recalibrate_norms(model, [empty, FORMS[form], empty]) == 6
    (norm,) = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    torch.testing.assert_close(norm.running_mean, X.mean(0))
    torch.testing.assert_close(norm.running_var, X.var(0))


@pytest.mark.parametrize("name", [name for name in FORMS if name != "tensor"])
def test_every_form_gives_the_same_labels(name: str) -> None:
    assert torch.equal(labels_of(FORMS[name]), LABELS)
    assert batch_size(FORMS[name]) == 6


@pytest.mark.parametrize("batch", [X, {"x": X}, (X,), []], ids=["tensor", "mapping", "tuple", "empty"])
def test_missing_labels_are_named(batch: object) -> None:
    with pytest.raises(ValueError, match="no labels"):
        labels_of(batch)


def test_a_packed_sequence_is_one_input() -> None:
    packed = pack_sequence([torch.zeros(3, 4), torch.zeros(2, 4)])
    for batch in (packed, (packed, torch.zeros(2))):
        (found,), kwargs = inputs_of(nn.LSTM(4, 4), batch)
        assert torch.equal(found.data, packed.data)
        assert not kwargs
        assert batch_size(batch) == 2


def test_a_network_with_named_and_other_arguments_gets_all_but_the_labels() -> None:
    class Open(nn.Module):
        def forward(self, x: Tensor, **kwargs: object) -> Tensor:
            return x

    assert set(inputs_of(Open(), WITH_MORE)[1]) == {"index", "x", "names"}
