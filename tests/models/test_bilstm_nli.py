"""The BiLSTM classifier: its size, its outputs against one sentence at a time, its fixed vectors, and in a fresh process."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hf_geo.data.tokenizer import build_sentence_tokenizer
from hf_geo.models.text_classifiers import BiLstmNliConfig, BiLstmNliForSequenceClassification, build_bilstm
from hf_geo.subspaces import Subspace, SubspaceConfig
from tests.training.launching import launch_or_fail

SMALL = {"word_size": 6, "hidden_size": 5, "classifier_size": 7}
WORDS, UNKNOWN = 30, 0


def make_model(**settings) -> BiLstmNliForSequenceClassification:
    config = BiLstmNliConfig(**{"vocab_size": WORDS, "num_labels": 3, **SMALL, **settings})
    return BiLstmNliForSequenceClassification(config).double().eval()


def test_its_size_is_the_papers() -> None:
    with torch.device("meta"):
        model = BiLstmNliForSequenceClassification(BiLstmNliConfig(num_labels=3))
    lstm = 2 * 4 * 2048 * (300 + 2048 + 2)
    classifier = (16_384 + 1) * 512 + (512 + 1) * 512 + (512 + 1) * 3
    sizes = {name.partition(".")[0]: 0 for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        sizes[name.partition(".")[0]] += parameter.numel()
    assert sizes == {"embedding": 40_000 * 300, "lstm": lstm, "classifier": classifier}
    assert round((lstm + classifier) / 1e6, 1) == 47.2


def one_by_one(model: BiLstmNliForSequenceClassification, rows: list[tuple[list[int], ...]]) -> Tensor:
    """The logits of rows of sentences, each sentence read by itself, without padding."""
    config, table = model.config, model.embedding.weight
    if model.vectors is not None:
        table = torch.cat((table, model.vectors))
    read = [[[i for i in s if i != config.drop_token_id] or [config.pad_token_id] for s in row] for row in rows]
    vectors = [[model.lstm(table[torch.tensor(s)][None])[0][0].max(0).values for s in row] for row in read]
    if config.pool_padding:  # zero counts as a word of each sentence but the longest
        for side in range(config.sentences):
            longest = max(len(row[side]) for row in read)
            for row, vector in zip(read, vectors, strict=True):
                if len(row[side]) < longest:
                    vector[side] = vector[side].clamp(min=0)
    if config.sentences == 2:
        features = torch.stack([torch.cat((u, v, (u - v).abs(), u * v)) for u, v in vectors])
    else:
        features = torch.stack([u for (u,) in vectors])
    return model.classifier(features)


def padded(rows: list[tuple[list[int], ...]], side: str) -> dict[str, Tensor]:
    width = max(sum(map(len, row)) for row in rows)
    batch: dict[str, list] = {"input_ids": [], "token_type_ids": [], "attention_mask": []}
    for row in rows:
        ids = [word for sentence in row for word in sentence]
        types = [number for number, sentence in enumerate(row) for _ in sentence]
        fill = [3] * (width - len(ids))
        for name, values in (("input_ids", ids), ("token_type_ids", types), ("attention_mask", [1] * len(ids))):
            blank = fill if name == "input_ids" else [0] * len(fill)
            batch[name].append(values + blank if side == "right" else blank + values)
    return {name: torch.tensor(values) for name, values in batch.items()}


@pytest.mark.parametrize("side", ("right", "left"))
@pytest.mark.parametrize(
    "settings",
    [{}, {"sentences": 1}, {"pool_padding": True}, {"drop_token_id": UNKNOWN}, {"frozen_words": 20, "drop_token_id": UNKNOWN}],
    ids=str,
)  # fmt: skip
def test_a_batch_gives_what_each_sentence_gives_alone(settings: dict, side: str) -> None:
    torch.manual_seed(0)
    model = make_model(pad_token_id=3, **settings)
    pairs = [
        ([1, 8, 0, 9, 2], [1, 25, 2]),
        ([1, 0, 2], [1, 4, 0, 0, 5, 29, 6, 2]),
        ([0], [0, 0]),
        ([1, 7, 2], [1, 7, 2]),
    ]
    rows = pairs if model.config.sentences == 2 else [(first,) for first, _ in pairs]
    batch = padded(rows, side)
    found = model(**batch, labels=torch.tensor([0, 1, 2, 1]))
    torch.testing.assert_close(found.logits, one_by_one(model, rows))
    torch.testing.assert_close(found.loss.double(), nn.functional.cross_entropy(found.logits, torch.tensor([0, 1, 2, 1])), check_dtype=False)  # fmt: skip
    found.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_pairs_need_to_be_told_apart() -> None:
    with pytest.raises(ValueError, match="token_type_ids are missing"):
        make_model()(torch.ones(2, 5, dtype=torch.long))


def test_fixed_vectors_stay_and_others_are_trained() -> None:
    tokenizer = build_sentence_tokenizer(["cat", "dog", "sat"])
    vectors = torch.randn(2, 4)
    arguments = {"hidden_size": 3, "classifier_size": 3}
    model = build_bilstm(tokenizer, ("a", "b"), sentences=1, vectors=vectors, model_args=arguments)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    batch = tokenizer(["cat sat", "dog"], padding=True, return_tensors="pt")
    before = model.embedding.weight.detach().clone()
    model(**batch, labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    assert torch.equal(model.vectors, vectors)
    used = [tokenizer.convert_tokens_to_ids(word) for word in ("<s>", "</s>", "cat")]
    changed = (model.embedding.weight != before).any(1)
    assert changed.nonzero().flatten().tolist() == sorted(used) and len(changed) == 5  # the special ones and "cat"


def test_bf16_and_a_position_between_two_networks() -> None:
    """torch reads the LSTM's weights anew at each position, although it keeps them in one list."""
    torch.manual_seed(0)
    model, other = make_model().float(), make_model().float()
    ends = [model.state_dict(), other.state_dict()]
    middle = make_model().float()
    middle.load_state_dict({name: (ends[0][name] + ends[1][name]) / 2 for name in ends[0]})
    batch = padded([([1, 8, 9, 2], [1, 25, 2]), ([1, 2], [1, 4, 2])], "right")
    subspace = Subspace.attach(model, SubspaceConfig(kind="line"), points={1: ends[1]})
    for position, expected in ((0.5, middle), (1.0, other)):
        subspace.set_position(position)
        torch.testing.assert_close(model(**batch).logits, expected(**batch).logits)
    subspace.set_position(0.3)
    with torch.autocast("cpu", torch.bfloat16):
        model(**batch, labels=torch.tensor([0, 1])).loss.backward()
    weights = [p for name, p in model.named_parameters() if "lstm" in name]
    assert len(weights) == 16 and all(p.grad.isfinite().all() and p.grad.any() for p in weights[::2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": 3}, "bilstm_nli has no argument 'hidden': it takes classifier_size, hidden_size"),
        ({"hidden_size": 0}, "hidden_size is at least 1, not 0"),
        ({"hidden_size": "many"}, "cannot be made with hidden_size='many'"),
        ({"word_size": 5}, "The word vectors have 4 numbers each, and --model_args asks for word_size=5"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    tokenizer = build_sentence_tokenizer(["cat"])
    with pytest.raises(ValueError, match=message):
        build_bilstm(tokenizer, ("a", "b"), sentences=2, vectors=torch.ones(1, 4), model_args=arguments)


@pytest.mark.slow
def test_a_fresh_process_without_this_package_opens_it(tmp_path) -> None:
    tokenizer = build_sentence_tokenizer(["the", "a", "cat", "sat", "."], lowercase=True)
    arguments = {"hidden_size": 3, "classifier_size": 3}
    labels = ("yes", "no", "perhaps")
    model = build_bilstm(
        tokenizer, labels, sentences=2, vectors=torch.randn(3, 4), drop_unknown=True, model_args=arguments
    ).eval()
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    script = tmp_path / "open.py"  # a copy outside of the repository, where the package must not be found
    script.write_text(Path(__file__).with_name("open_text_classifier.py").read_text())
    done = launch_or_fail(script, tmp_path / "model", HF_HOME=str(tmp_path / "home"), PYTHONPATH="")
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["package"] and found["fixed"] == model.vectors.tolist()
    assert found["class"].endswith(".BiLstmNliForSequenceClassification")
    with torch.no_grad():
        logits = model(**tokenizer("A cat sat.", "the dog ran", return_tensors="pt")).logits[0]
        same = model(**tokenizer("a cat sat .", "the", return_tensors="pt")).logits[
            0
        ]  # words that are not known are dropped
    torch.testing.assert_close(torch.tensor(found["logits"]), logits)
    torch.testing.assert_close(same, logits)
    assert found["label"] == labels[int(logits.argmax())] and math.isfinite(logits.sum())
