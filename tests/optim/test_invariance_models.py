"""What the probe finds in real architectures, checked against the laws of scale invariance."""

import pytest
import timm
import torch
import transformers
from torch import nn

from hf_geo.optim import measure_invariance, scale_invariant_parameters
from hf_geo.optim.geometry import norm_fed_weights

from .invariance_laws import Built, check_laws

# timm's name, and how many tensors are invariant per filter. Nothing else is in any of them.
TIMM = {
    "resnet18": 20,
    "mobilenetv3_small_050": 34,
    "test_byobnet": 14,
    "test_efficientnet": 13,
    "test_nfnet": 25,  # standardised weights
    "test_convnext": 0,
    "test_vit": 0,
}


@pytest.mark.parametrize("name", TIMM)
def test_timm_model(name: str):
    model = timm.create_model(name, num_classes=10, **({"img_size": 64} if "vit" in name else {}))
    images = torch.randn(3, 3, 64, 64)
    rows = measure_invariance(model, images)
    found = {row.name: row.channel_dims for row in rows if row.channel_dims is not None}
    assert set(found.values()) <= {(0,)}
    assert len(found) == TIMM[name]
    check_laws(model, images, rows, sample=6)


@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050"])
def test_structure_agrees_where_it_can_tell(name: str):
    model = timm.create_model(name, num_classes=10)
    # The stem of a test_resnet is a container of its own, with the norm of its last convolution behind it.
    hidden = {"conv1.6.weight": (0,)} if name == "test_resnet" else {}
    assert scale_invariant_parameters(model, torch.randn(3, 3, 64, 64)) == norm_fed_weights(model) | hidden


def test_what_hides_in_a_convnext():
    """Its convolutions would be invariant before the layer norm, were it not for their biases."""
    model = timm.create_model("test_convnext", num_classes=10)
    explained = measure_invariance(model, torch.randn(4, 3, 64, 64), explain=True)
    shifted = {row.name for row in explained if "bias" in row.reason and row.deviation is not None}
    assert {name for name, _ in model.named_parameters() if name.endswith("conv_dw.weight")} <= shifted
    assert "head.fc.weight" not in shifted


@pytest.mark.parametrize("norm_first", [True, False], ids=["pre-norm", "post-norm"])
def test_transformer(norm_first: bool):
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True, norm_first=norm_first)
    model = Built(
        lambda m, ids: m.decoder(m.encoder(m.embedding(ids))),
        embedding=nn.Embedding(50, 16),
        encoder=nn.TransformerEncoder(layer, 3, enable_nested_tensor=False),
        decoder=nn.Linear(16, 50),
    )
    ids = torch.randint(0, 50, (4, 7))
    rows = measure_invariance(model, ids)
    assert [row.name for row in rows if row.channel_dims is not None] == []
    check_laws(model, ids, rows)


SMALL = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
LANGUAGE = {
    # Tied embeddings are one entry; GPT-2's layers are `Conv1D`, with their outputs on the second axis.
    "gpt2": (
        lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=16)
        ),
        set(),
    ),
    # Norms on queries and keys.
    "qwen3": (
        lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SMALL, **HEADS, head_dim=8)),
        {"q_proj", "k_proj"},
    ),
    # Norms on queries and keys, and at the end of every branch instead of at its start.
    "olmo2": (
        lambda: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**SMALL, **HEADS)),
        {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"},
    ),
}


@pytest.mark.parametrize("name", LANGUAGE)
def test_language_model(name: str):
    make, layers = LANGUAGE[name]
    model = make()
    ids = torch.randint(0, 60, (4, 9))
    inputs = {"input_ids": ids, "labels": ids}
    rows = measure_invariance(model, inputs)
    found = {row.name: row.channel_dims for row in rows if row.channel_dims is not None}
    assert {key.split(".")[-2] for key in found} == layers
    assert set(found.values()) <= {()}
    # transformers computes some norms in float32 whatever the model's dtype.
    check_laws(model, inputs, rows, tolerance=1e-5, sample=8)


def test_half_precision_finds_the_same():
    make, _ = LANGUAGE["qwen3"]
    model = make()
    inputs = {"input_ids": torch.randint(0, 60, (4, 9))}
    wide = scale_invariant_parameters(model, inputs)
    assert wide
    assert scale_invariant_parameters(model.bfloat16(), inputs) == wide
