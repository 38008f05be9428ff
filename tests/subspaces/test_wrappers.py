"""Wrappers that forward attributes to the module inside them do not count as its weights' second home."""

from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import timm
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from hf_geo.subspaces import Subspace, SubspaceConfig

IDS = torch.arange(12).view(2, 6)


def _adapted_classifier() -> nn.Module:
    """PEFT keeps a trainable copy of the classifier in a `ModulesToSaveWrapper`."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    network = BertForSequenceClassification(BertConfig(vocab_size=20, num_labels=3, **sizes))
    return peft.get_peft_model(network, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"]))


def _adapted_root() -> nn.Module:
    """PEFT's model forwards to a network that has parameters of its own, a class token and position embeddings."""
    network = timm.create_model("test_vit", num_classes=3, img_size=32)
    model = peft.get_peft_model(network, peft.LoraConfig(r=2, target_modules=["qkv"], init_lora_weights=False))
    network.cls_token.requires_grad_()
    return model


def _compiled_layer() -> nn.Module:
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    network[0] = torch.compile(network[0], backend="eager")
    return network


class _Forwarding(nn.Module):
    """Has a weight of its own, and forwards what it does not have."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.mix = nn.Parameter(torch.randn(4, 4))

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x @ self.mix)


def _own_weight_around_a_parametrized_one() -> nn.Module:
    return nn.Sequential(_Forwarding(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))), nn.Linear(4, 2))


def _own_weight_around_a_tied_one() -> nn.Module:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(first, _Forwarding(second))


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (_adapted_classifier, IDS),
        (_adapted_root, torch.randn(2, 3, 32, 32)),
        (_compiled_layer, torch.randn(3, 4)),
        (_own_weight_around_a_parametrized_one, torch.randn(3, 4)),
        (_own_weight_around_a_tied_one, torch.randn(3, 4)),
    ],
    ids=["modules_to_save", "peft_root", "compiled_layer", "parametrized", "tied"],
)
def test_each_weight_is_spanned_and_saved_and_regularized_once(
    make: Callable[[], nn.Module], inputs: Tensor, tmp_path: Path
) -> None:
    def outputs(model: nn.Module) -> Tensor:
        answer = model.eval()(inputs)
        return answer if isinstance(answer, Tensor) else answer.logits

    model, plain = make(), make()
    plain.load_state_dict(model.state_dict())
    trainable = [p for p in plain.parameters() if p.requires_grad]
    subspace = Subspace.attach(model, SubspaceConfig(jitter=0.5, layerwise=True))
    subspace.sample(torch.Generator().manual_seed(0))

    folded = subspace.folded_state_dict()
    assert set(folded) == set(plain.state_dict())
    plain.load_state_dict(folded)
    assert torch.equal(outputs(model), outputs(plain))

    assert len([p for p in model.parameters() if p.requires_grad]) == 2 * len(trainable)
    weights = [name for name, p in plain.named_parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [torch.cat([subspace.point_state_dict(i)[name].flatten() for name in weights]) for i in (0, 1)]
    cosine = torch.cosine_similarity(*vectors, dim=0)
    torch.testing.assert_close(subspace.regularizer(), cosine.square(), rtol=1e-5, atol=1e-7)

    subspace.save(tmp_path)
    fresh = make()
    fresh.load_state_dict(folded)
    loaded = Subspace.load(tmp_path, fresh)
    for index in (0, 1):
        expected = subspace.point_state_dict(index)
        assert all(torch.equal(value, expected[name]) for name, value in loaded.point_state_dict(index).items())
    loaded.set_coefficients(subspace.coefficients)
    assert torch.equal(outputs(fresh), outputs(model))


def test_a_subspace_is_loaded_with_and_without_compilation(tmp_path: Path) -> None:
    compiled = Subspace.attach(_compiled_layer(), SubspaceConfig())
    compiled.save(tmp_path / "compiled")
    bare = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    expected = [value for _, value in sorted(compiled.point_state_dict(1).items())]
    Subspace.load(tmp_path / "compiled", bare).save(tmp_path / "bare")
    again = Subspace.load(tmp_path / "bare", _compiled_layer()).point_state_dict(1)
    assert all(torch.equal(value, e) for (_, value), e in zip(sorted(again.items()), expected, strict=True))
    for end in (again, {name.replace("_orig_mod.", ""): value for name, value in again.items()}):
        point = Subspace.attach(_compiled_layer(), SubspaceConfig(), points={1: end}).point_state_dict(1)
        assert all(torch.equal(point[name], value) for name, value in again.items())
