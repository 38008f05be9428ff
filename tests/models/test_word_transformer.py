"""The word-level Transformer is PyTorch's example, and behaves as a causal language model of transformers does."""

import ast
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, StaticCache
from transformers.loss.loss_utils import ForCausalLMLoss

import hf_geo.models
from hf_geo.models import WordTransformerConfig, WordTransformerForCausalLM
from hf_geo.models.word_transformer import CACHE
from tests.models.language_cases import WORDS, ReferenceTransformer, make_model, make_words, pytorch_name

MASKED = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])


def test_logits_and_gradients_are_those_of_pytorchs_layers() -> None:
    model = make_model(nlayers=3).double()
    torch.nn.init.normal_(model.decoder.bias)
    reference, words = ReferenceTransformer(model), make_words()
    ours, theirs = model(words).logits, reference(words.T).transpose(0, 1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)

    scale = torch.randn_like(ours)
    (ours * scale).sum().backward()
    (theirs * scale).sum().backward()
    gradients = {name: p.grad for name, p in reference.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[pytorch_name(name)], rtol=0, atol=1e-10)


def test_dropout_acts_where_pytorchs_layers_have_it() -> None:
    """After the positions; after attention, inside the feed-forward network and after it; on the attention itself."""
    model, words = make_model(dropout=0.5).train(), make_words()
    modules = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    calls = Counter()
    for module in modules:
        module.register_forward_hook(lambda m, inputs, output: calls.update([(m, output.shape[-1])]))
    model(words)
    assert calls == {(model.dropout, 12): 1} | {
        (layer.dropout, width): count for layer in model.layers for width, count in ((12, 2), (10, 1))
    }
    for module in modules:
        module.p = 0.0
    assert not torch.equal(model(words).logits, model(words).logits)  # the attention's own
    assert torch.equal(model.eval()(words).logits, model(words).logits)


def test_initial_weights() -> None:
    model = WordTransformerForCausalLM(WordTransformerConfig(vocab_size=500))
    width = model.config.d_model
    attention = model.layers[0].self_attn
    bounds = {
        model.embedding.weight: 0.1,
        model.decoder.weight: 0.1,
        attention.in_proj.weight: (6 / (4 * width)) ** 0.5,
    }
    for layer in (attention.out_proj, model.layers[1].linear1, model.layers[1].linear2):
        bounds[layer.weight] = width**-0.5
    for weight, bound in bounds.items():
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02) and abs(weight.mean()) < bound / 50
    for bias in (model.decoder.bias, attention.in_proj.bias, attention.out_proj.bias):
        assert not bias.any()
    assert not torch.equal(attention.in_proj.weight, model.layers[1].self_attn.in_proj.weight)


@pytest.mark.parametrize(
    ("mode", "count"), [("training", None), ("training", torch.tensor(11)), ("evaluation", None), ("evaluation", 11)]
)
def test_the_loss_is_transformers_own(mode: str, count: int | torch.Tensor | None) -> None:
    model, words = make_model(), make_words()
    labels = words.clone()
    labels[0, :3] = labels[2, 5] = -100
    expected = ForCausalLMLoss(model(words).logits, labels, WORDS, num_items_in_batch=count)
    expected.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()

    out = model.train(mode == "training")(words, labels=labels, num_items_in_batch=count)
    assert (out.logits is None) == (mode == "training")
    with torch.no_grad():
        assert model(words, labels=labels).logits.shape == (*words.shape, WORDS)
    out.loss.backward()
    torch.testing.assert_close(out.loss, expected, rtol=1e-6, atol=0)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_tied_weights_are_one_tensor_and_stay_so_when_saved(tmp_path) -> None:
    model, words = make_model(tie_word_embeddings=True), make_words()
    assert model.decoder.weight is model.embedding.weight
    model.train()(words, labels=words).loss.backward()
    untied = make_model()
    untied.load_state_dict(model.state_dict())
    untied.train()(words, labels=words).loss.backward()
    both = untied.embedding.weight.grad + untied.decoder.weight.grad
    torch.testing.assert_close(model.embedding.weight.grad, both)

    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.decoder.weight is again.embedding.weight
    assert torch.equal(again(words).logits, model.eval()(words).logits)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in untied.parameters()) - WORDS * 12


@pytest.mark.parametrize(
    ("settings", "cache"),
    [({}, {}), ({"do_sample": True}, {}), ({"num_beams": 3}, {}), ({}, {"cache_implementation": "static"})],
    ids=["greedy", "sampling", "beams", "static"],
)
def test_generation_with_the_cache_is_generation_without(settings: dict, cache: dict) -> None:
    model, words = make_model(pad_token_id=0).eval(), make_words(rows=2, length=4)
    found = []
    for options in ({"use_cache": True, **cache}, {"use_cache": False}):
        torch.manual_seed(0)
        options |= {"max_new_tokens": 12, "attention_mask": torch.ones_like(words), **settings}
        found.append(model.generate(words, **options))
    assert found[0].shape == (2, 16) and torch.equal(*found)
    if not settings:
        logits = model(found[0]).logits
        assert torch.equal(found[0][:, 4:], logits[:, 3:-1].argmax(-1))


@pytest.mark.parametrize(
    ("name", "masked", "room"),
    [("cache", False, None), ("past_key_values", True, None), ("cache", True, 20), ("past_key_values", False, 20)],
)
def test_words_read_one_by_one_are_words_read_at_once(name: str, masked: bool, room: int | None) -> None:
    """With a cache that grows and with one of fixed size, under either of the names releases of transformers give it."""
    model, words = make_model().eval(), make_words()
    cache, found, seen = None if room is None else StaticCache(model.config, max_cache_len=room), [], 0
    for part in words.split([3, 1, 1, 2], dim=1):
        seen += part.shape[1]
        mask = {"attention_mask": torch.ones(3, seen)} if masked else {}
        out = model(part, **{name: cache}, use_cache=True, **mask)
        cache = out[CACHE]
        found.append(out.logits)
    torch.testing.assert_close(torch.cat(found, dim=1), model(words).logits)


def test_texts_packed_into_a_row_do_not_see_each_other() -> None:
    model, words = make_model().eval(), make_words(rows=1, length=7)
    packed = model(words, position_ids=torch.tensor([[0, 1, 2, 0, 1, 2, 3]])).logits
    apart = [model(text).logits for text in words.split([3, 4], dim=1)]
    torch.testing.assert_close(packed, torch.cat(apart, dim=1))


def test_padding_on_the_left_changes_nothing() -> None:
    model, words = make_model(pad_token_id=0).eval(), make_words(length=5)
    options = {"max_new_tokens": 6, "do_sample": False}
    together = model.generate(words, attention_mask=MASKED, **options)
    for row, mask, whole in zip(words, MASKED, together, strict=True):
        alone = model.generate(row[mask.bool()][None], attention_mask=torch.ones(1, int(mask.sum())), **options)
        assert torch.equal(whole[5:], alone[0, -6:])
    places = (MASKED.cumsum(1) - 1).clamp(min=0)
    assert model(words, attention_mask=MASKED, position_ids=places).logits.isfinite().all()


def test_exported_code_stands_on_public_ground() -> None:
    """What lies beside exported weights runs under releases to come: of transformers it uses what its documentation shows."""
    found = set()
    for source in ("word_transformer", "word_transformer_config", "linear_cross_entropy"):
        for node in ast.walk(ast.parse((Path(hf_geo.models.__file__).parent / f"{source}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module)
    libraries = {name for name in found if name.split(".")[0] in ("transformers", "huggingface_hub")}
    assert libraries == {"transformers", "transformers.modeling_outputs", "huggingface_hub.dataclasses"}


def test_other_outputs() -> None:
    model, words = make_model().eval(), make_words()
    whole = model(words, output_hidden_states=True, use_cache=True)
    assert [h.shape for h in whole.hidden_states] == 3 * [(3, 7, 12)]
    assert torch.equal(model.decoder(whole.hidden_states[-1]), whole.logits)
    assert whole[CACHE].get_seq_length() == 7
    torch.testing.assert_close(model(words, logits_to_keep=2).logits, whole.logits[:, -2:])
    embedded = model.get_input_embeddings()(words)
    assert torch.equal(model(inputs_embeds=embedded, return_dict=False)[0], whole.logits)
    for arguments in ({}, {"input_ids": words, "inputs_embeds": embedded}):
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            model(**arguments)


def test_config_round_trip(tmp_path) -> None:
    config = WordTransformerConfig(vocab_size=40, d_model=16, nhead=4, tie_word_embeddings=True, eos_token_id=1)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is WordTransformerConfig
    assert {**again.to_dict(), "_name_or_path": ""} == config.to_dict()
    assert (again.hidden_size, again.num_attention_heads, again.num_hidden_layers) == (16, 4, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 10, "nhead": 4}, "d_model=10 must be even and a multiple of nhead=4"),
        ({"d_model": 9, "nhead": 3}, "d_model=9 must be even"),
        ({"dropout": 1.0}, r"dropout is a probability in \[0, 1\), not 1.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(**settings)
