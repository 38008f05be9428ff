"""Language models by name: built, matched with a tokenizer, opened in fresh processes, and writing text."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from hf_geo.data import build_word_tokenizer
from hf_geo.models import build_language_model, check_vocabulary, generate_text, max_positions
from tests.models.tiny import SIZES, gpt2
from tests.training.launching import launch_or_fail

TEXT = ["the cat sees a dog", "a dog sees the cat and the bird"]
SMALL = {"d_model": 8, "d_hid": 8, "nlayers": 1, "nhead": 2}


@pytest.fixture(scope="module")
def tokenizer():
    return build_word_tokenizer(TEXT)


def test_a_fresh_process_without_this_package_opens_it_and_writes(tokenizer, tmp_path) -> None:
    model = build_language_model(
        "word_transformer", tokenizer, model_args={**SMALL, "tie_word_embeddings": True}
    ).eval()
    config = model.config
    assert (config.vocab_size, config.eos_token_id, config.bos_token_id) == (len(tokenizer), 1, 1)
    assert (config.d_model, config.nlayers, config.dropout) == (8, 1, 0.2)
    with torch.no_grad():
        model.decoder.bias[:2] = -10.0  # <unk>, which is not written out, and <eos>, which ends the text
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")

    script = tmp_path / "open.py"  # a copy outside of the repository, where the package must not be found
    script.write_text(Path(__file__).with_name("open_language_model.py").read_text())
    done = launch_or_fail(script, tmp_path / "model", HF_HOME=str(tmp_path / "home"), PYTHONPATH="")
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["package"] and found["tied"] and found["class"].endswith(".WordTransformerForCausalLM")
    with torch.no_grad():
        logits = model(**tokenizer("the cat", return_tensors="pt")).logits[0, -1]
    torch.testing.assert_close(torch.tensor(found["logits"]), logits)
    assert [len(text.split()) for text in found["written"]] == [6, 8]
    assert found["written"][0].startswith("the cat ") and found["written"][1].startswith("a dog sees the ")
    assert {word for text in found["written"] for word in text.split()} <= set(tokenizer.get_vocab())


def test_a_folder_brings_its_weights(tokenizer, tmp_path) -> None:
    model = gpt2(vocab_size=20).bfloat16()
    model.save_pretrained(tmp_path)
    again = build_language_model(str(tmp_path), tokenizer)  # a vocabulary padded beyond the tokenizer's
    assert torch.equal(again.transformer.wte.weight, model.transformer.wte.weight.float())
    assert {p.dtype for p in again.parameters()} == {torch.float32}  # however they were stored
    with pytest.raises(ValueError, match="The tokenizer has 9 tokens and the model 8: they do not belong together"):
        check_vocabulary(gpt2(vocab_size=8), tokenizer)


@pytest.mark.parametrize("kind", ["bert", "roberta", "camembert", "xlm-roberta-xl", "mpnet", "ibert", "nystromformer"])
def test_the_longest_text_is_as_long_as_a_forward_pass_allows(kind: str) -> None:
    config = AutoConfig.for_model(kind, vocab_size=20, max_position_embeddings=12, pad_token_id=3, **SIZES)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    longest = max_positions(model)
    model(torch.full((1, longest), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, longest + 1), 5))


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("word_transformer", {"d_mdel": 8}, "word_transformer has no argument 'd_mdel': it takes d_hid, d_model"),
        ("word_transformer", {"vocab_size": 50}, "tokenizer has 9 tokens and the model 50"),
        ("/no/such/folder", {}, "transformers opens no language model from '/no/such/folder'"),
        ("/no/such/folder", {"d_model": 8}, "brings its own configuration"),
    ],
)
def test_bad_names_and_arguments(tokenizer, name: str, args: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_language_model(name, tokenizer, model_args=args)


def test_generated_text(tokenizer) -> None:
    torch.manual_seed(0)
    model = build_language_model("word_transformer", tokenizer, model_args=SMALL).train()
    state = torch.get_rng_state()
    first = generate_text(model, tokenizer, "the zebra sees", max_new_tokens=20, seed=1)
    assert first == generate_text(model, tokenizer, "the zebra sees", max_new_tokens=20, seed=1)
    assert first != generate_text(model, tokenizer, "the zebra sees", max_new_tokens=20, seed=2)
    assert first.startswith("the <unk> sees ") and not first.endswith("<eos>")
    assert model.training and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("prompt", ["zebra quagga", ""])
def test_a_prompt_of_unknown_words(tokenizer, prompt: str) -> None:
    model = build_language_model("word_transformer", tokenizer, model_args=SMALL)
    with pytest.raises(ValueError, match=f"The prompt '{prompt}' has no word that is among the 9 of the vocabulary"):
        generate_text(model, tokenizer, prompt)
