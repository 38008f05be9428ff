"""transformers' Trainer on a text: the paper's stream, by one process or several, and exact perplexities."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from hf_geo.data import LanguageData
from hf_geo.data.language import Windows
from hf_geo.metrics import language_metrics, nll_per_row
from tests.data.run_language import BPTT, COLUMNS, EVAL_COLUMNS, LEARNING_RATE, arguments, main, make_model, make_text
from tests.data.test_windows import paper_batches
from tests.models.tiny import byte_tokenizer, gpt2
from tests.training.launching import launch_or_fail


@pytest.fixture(scope="module")
def text():
    return make_text()


@pytest.fixture(scope="module")
def by_hand(text):
    """The example's loop: plain SGD on the mean loss of each window over all columns."""
    tokenizer = text.word_tokenizer()
    model = make_model(tokenizer)
    losses = []
    for inputs, targets in paper_batches(text.tokens("train", tokenizer).numpy(), COLUMNS, BPTT):
        logits = model(torch.from_numpy(inputs).long().T).logits
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).long().T.flatten())
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= LEARNING_RATE * p.grad
        losses.append(loss.item())
    return model, losses


@pytest.mark.parametrize(("processes", "steps", "share"), [(1, 1, 4), pytest.param(2, 2, 1, marks=pytest.mark.slow)])
def test_the_trainer_streams_as_the_examples_loop(text, by_hand, processes, steps, share, tmp_path) -> None:
    if processes == 1:
        main(tmp_path, steps)
    else:
        launch_or_fail(Path(__file__).with_name("run_language.py"), tmp_path, str(steps), processes=processes)
    report, weights = json.loads((tmp_path / "report.json").read_text()), load_file(tmp_path / "weights.safetensors")

    model, losses = by_hand
    assert report["batch_size"] == share
    assert report["losses"] == pytest.approx(losses, abs=1e-5) and losses[0] - min(losses) > 0.05
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(weights[name], parameter.detach(), rtol=0, atol=1e-10)

    # The whole stream, whoever read which column, although 2 processes cannot share 3 columns evenly.
    nll, words = 0.0, 0
    tokens = text.tokens("eval", text.word_tokenizer()).numpy()
    for inputs, targets in paper_batches(tokens, EVAL_COLUMNS, BPTT):
        scores = model(torch.from_numpy(inputs).long().T).logits.log_softmax(-1)
        nll -= scores.gather(-1, torch.from_numpy(targets).long().T[..., None]).sum().item()
        words += targets.size
    assert words % (EVAL_COLUMNS * BPTT) != 0  # the last window is a short one
    assert report["eval_tokens"] == words
    assert report["eval_perplexity"] == pytest.approx(math.exp(nll / words), rel=1e-5)
    assert report["eval_loss"] == pytest.approx(nll / words, rel=1e-6)


def test_blocks_with_a_tokenizer_of_its_own(text, tmp_path) -> None:
    tokenizer = byte_tokenizer(text.splits["train"]["text"])
    torch.manual_seed(0)
    model = gpt2(vocab_size=310, n_positions=16).eval()
    language = LanguageData(text, tokenizer, arguments(block_size=16), batch_size=3)
    assert (language.layout, language.sampling, language.batch_size) == ("blocks", "random", 3)
    blocks = language.evaluation_set("eval")
    args = TrainingArguments(output_dir=str(tmp_path), per_device_eval_batch_size=3, use_cpu=True)
    metrics = {"compute_metrics": language_metrics, "preprocess_logits_for_metrics": nll_per_row}
    results = Trainer(model, args, data_collator=language.collate, eval_dataset=blocks, **metrics).evaluate()

    tokens = text.tokens("eval", tokenizer).long()
    nll, count = 0.0, 0
    for block in tokens.split(16):
        with torch.no_grad():
            scores = model(block[None]).logits[0, :-1].log_softmax(-1)
        nll -= scores.gather(-1, block[1:, None]).sum().item()
        count += len(block) - 1
    assert results["eval_tokens"] == count == len(tokens) - len(blocks)
    assert results["eval_perplexity"] == pytest.approx(math.exp(nll / count), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "batch_sizes", "perplexity"),
    [
        ({}, (8, 3), "per word, over the whole stream in 3 columns, read in windows of 7"),
        ({"columns": 20, "eval_columns": 10}, (20, 10), "per word, over the whole stream in 10 columns"),
        ({"text_layout": "blocks", "block_size": 9}, (8, 16), "per word, within blocks of 9 whose first word is not"),
    ],
)
def test_batch_sizes_and_what_a_perplexity_means(text, settings, batch_sizes, perplexity) -> None:
    language = LanguageData(text, text.word_tokenizer(), arguments(**settings), eval_batch_size=16)
    assert (language.batch_size, language.eval_batch_size) == batch_sizes
    assert language.perplexity.startswith(perplexity)


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({}, {"longest": 7}, "--bptt makes texts of 8 tokens, and the model reads 7 at most"),
        ({"text_layout": "blocks", "block_size": 9}, {"longest": 8}, "--block_size makes texts of 9 tokens, and"),
    ],
)
def test_bad_layouts(text, settings, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        LanguageData(text, text.word_tokenizer(), arguments(**settings), **options)


def test_streams_are_read_as_the_whole_text(text) -> None:
    streamed = make_text()
    streamed.splits["train"] = streamed.splits["train"].to_iterable_dataset()
    windows = LanguageData(streamed, streamed.word_tokenizer(), arguments(columns=COLUMNS)).training_set()
    assert isinstance(windows, Windows)
    assert torch.equal(windows.rows.flatten(), text.tokens("train", text.word_tokenizer())[: windows.rows.numel()])
    tokenizer = byte_tokenizer(text.splits["train"]["text"])
    blocks, whole = (LanguageData(t, tokenizer, arguments(block_size=16)).training_set() for t in (streamed, text))
    full = [block["input_ids"].tolist() for block in whole if len(block["input_ids"]) == 16]
    assert [block["input_ids"].tolist() for block in itertools.islice(blocks, 2 * len(full))] == 2 * full
    assert [LanguageData(text, tokenizer, arguments(), longest=n).block_size for n in (None, 512)] == [1024, 512]
