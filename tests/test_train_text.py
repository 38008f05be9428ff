"""`scripts/train.py` on sentences and pairs: the BiLSTM and an encoder, subspaces, evaluation, resuming, processes."""

import contextlib
import io
import json
from pathlib import Path

import datasets
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from hf_geo import Subspace
from hf_geo.data.tokenizer import build_sentence_tokenizer
from hf_geo.tasks import infer_task
from tests.models.tiny import bert
from tests.scripts import TRAIN, script
from tests.training.launching import launch_or_fail

SMALL = ("--model", "bilstm_nli", "--model_args", "word_size=6,hidden_size=5,classifier_size=6")
COMMON = ("--max_steps", "8", "--per_device_train_batch_size", "8", "--logging_steps", "1", "--disable_tqdm", "true",
          "--report_to", "none")  # fmt: skip
SGD = ("--optim", "sgd", "--learning_rate", "0.5", "--eval_strategy", "steps", "--eval_steps", "2",
       "--metric_for_best_model", "accuracy", "--lr_scheduler_type", "reduce_lr_on_plateau", "--lr_scheduler_kwargs",
       '{"decay": 0.9, "factor": 0.2, "patience": 0, "threshold": 0.0}', "--save_strategy", "steps",
       "--save_steps", "2")  # fmt: skip
ANIMALS, COLOURS = ("cat", "dog", "bird", "horse"), ("red", "green", "blue")
WORDS = ["The", "a", "is", "runs", "far", ".", *ANIMALS, *COLOURS]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with pairs to tell apart, an encoder of transformers, and word vectors."""
    place = tmp_path_factory.mktemp("text")
    pairs = [(f"The {a} is {c}.", f"a {b} runs" + " far" * (i % 5), a == b)
             for i, (a, b, c) in enumerate((a, b, c) for a in ANIMALS for b in ANIMALS for c in COLOURS)]  # fmt: skip
    for split, chosen in {
        "train": pairs[::2] + pairs[1::2][:9],
        "validation": pairs[1::4],
        "test": pairs[3::4],
    }.items():
        columns = zip(*chosen, strict=True)
        rows = dict(zip(("premise", "hypothesis", "same"), map(list, columns), strict=True))
        (place / "pairs").mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows).to_parquet(place / "pairs" / f"{split}.parquet")
    torch.manual_seed(0)
    bert(vocab_size=len(WORDS) + 4, max_position_embeddings=12, pad_token_id=3).save_pretrained(place / "bert")
    build_sentence_tokenizer(WORDS).save_pretrained(place / "bert")
    lines = [f"{word} {i / 10} -1 {i % 3} 0.5 0 1" for i, word in enumerate((*ANIMALS, *COLOURS, "unseen"))]
    (place / "vectors.txt").write_text("\n".join(lines) + "\n")
    return place


def train(place: Path, name: str, *words: str | Path) -> Path:
    data = ("--dataset", place / "pairs", "--label_column", "same", "--task", "text-classification")
    with contextlib.redirect_stdout(io.StringIO()):
        assert script("train")([*data, *COMMON, *words, "--output_dir", place / name]) == 0
    return place / name


def evaluate(place: Path, *words: str | Path) -> dict:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert script("evaluate")([*words, "--dataset", place / "pairs", "--json"]) == 0
    return json.loads(output.getvalue())


def losses(folder: Path) -> list[float]:
    rows = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.fixture(scope="module")
def line(place) -> Path:
    words = ("--optim", "alig", "--learning_rate", "1", "--loss", "crammer-singer", "--subspace", "line")
    return train(place, "line", *SMALL, *words, "--save_strategy", "no")


def test_a_line_of_bilstms_is_described_and_walked(place, line) -> None:
    card = ModelCard.load(line / "README.md")
    assert card.data.pipeline_tag == "text-classification"
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert {"accuracy", "macro_f1", "ece", "loss"} <= set(measured)
    # The table's loss is not the one that was trained with.
    assert (
        "Losses of evaluations are the cross-entropy; the one it was trained with is `crammer-singer`." in card.content
    )
    assert "It tells pairs of texts of 2 classes apart: False, True." in card.content
    assert "train: 33 rows from split 'train'" in card.content and "the centre of a line of 2 networks" in card.content
    model = AutoModelForSequenceClassification.from_pretrained(line)
    exported = load_file(line / "model.safetensors")
    subspace = Subspace.load(line, model)
    centre, ends = subspace.folded_state_dict(0.5), [subspace.point_state_dict(i) for i in range(2)]
    assert all(torch.equal(exported[name], centre[name]) for name in exported)
    weight = "lstm.weight_hh_l0_reverse"
    assert (ends[0][weight] - ends[1][weight]).norm() > 0.1 * ends[0][weight].norm()

    walked = evaluate(place, "--model", line, "--positions", "3")
    assert len({point["nll"] for point in walked["points"]}) == 3
    assert walked["points"][1]["accuracy"] == measured["accuracy"] and walked["points"][1]["ece"] == pytest.approx(
        measured["ece"]
    )
    evaluate_words = ("--model", line, "--export_position", "0", "--output_dir", place / "end")
    with contextlib.redirect_stdout(io.StringIO()):
        assert script("evaluate")([*evaluate_words, "--dataset", place / "pairs"]) == 0
    both = evaluate(place, "--model", line, "--model", place / "end", "--ensemble", "--output_dir", place / "both")
    assert both["points"][1]["nll"] == pytest.approx(walked["points"][0]["nll"], rel=1e-5)
    assert both["ensembles"][0]["members"] == ["line", "end"]


def test_models_of_several_lengths_are_evaluated_on_texts_that_all_of_them_take(place) -> None:
    build_sentence_tokenizer(WORDS).save_pretrained(place / "shorter")
    bert(vocab_size=len(WORDS) + 4, max_position_embeddings=9, pad_token_id=3).save_pretrained(place / "shorter")
    words = ("--label_column", "same", "--model", place / "bert", "--model", place / "shorter")
    assert len(evaluate(place, *words)["points"]) == 2


def test_it_is_pushed_and_opened_from_the_hub(line, online, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", online.write_token)
    assert script("push")([line, "ada/pairs"]) == 0
    again, pushed = (
        AutoModelForSequenceClassification.from_pretrained("ada/pairs").state_dict(),
        line / "model.safetensors",
    )
    assert all(torch.equal(again[name], tensor) for name, tensor in load_file(pushed).items())


def test_an_encoder_trains_by_the_same_command(place) -> None:
    words = ("--model", place / "bert", "--optim", "fromage", "--train_sampling_strategy", "group_by_length")
    folder = train(place, "encoder", *words, "--max_length", "11", "--save_strategy", "no")
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "False", "1": "True"} and len(losses(folder)) == 8
    assert "rows were too long, and cut." in (folder / "README.md").read_text()
    assert evaluate(place, "--model", folder)["points"][0]["accuracy"] >= 0
    assert infer_task(str(folder), None).name == "text-classification"


def test_a_run_with_a_schedule_resumes_bit_by_bit(place) -> None:
    """SGD whose rate falls at every evaluation, and further where the accuracy is not the best so far."""
    whole = train(
        place, "whole", *SMALL, *SGD, "--word_vectors", place / "vectors.txt", "--words_without_vector", "train"
    )
    again = train(place, "again", *SMALL, *SGD, "--word_vectors", place / "vectors.txt", "--words_without_vector", "train",
                  "--resume_from_checkpoint", whole / "checkpoint-4")  # fmt: skip
    assert (whole / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    log = json.loads((whole / "trainer_state.json").read_text())["log_history"]
    rate, best, expected = 0.5, -1.0, []
    for row in log:
        if "learning_rate" in row:
            expected.append(rate)
        elif "eval_accuracy" in row and row["step"] < 8:
            rate *= 0.9 if row["eval_accuracy"] > best else 0.9 * 0.2
            best = max(best, row["eval_accuracy"])
    assert [row["learning_rate"] for row in log if "learning_rate" in row] == pytest.approx(expected)
    assert expected[0] == 0.5 and expected[-1] < 0.5 * 0.9**3 * 1.001
    weights = load_file(whole / "model.safetensors")
    assert torch.equal(weights["vectors"][:, 1], torch.full((7,), -1.0))  # as in the file
    assert len(weights["embedding.weight"]) == 4 + 6  # the special ones, and The a is runs far .


@pytest.mark.slow
def test_two_processes_train_as_one(place) -> None:
    words = ("--dataset", place / "pairs", "--label_column", "same", *SMALL, *COMMON, "--optim", "alig", "--learning_rate",
             "0.5", "--word_vectors", place / "vectors.txt", "--save_strategy", "no", "--max_steps", "4")  # fmt: skip
    single = train(place, "single", *words[4:])
    launch_or_fail(TRAIN, *words, "--per_device_train_batch_size", "4", "--output_dir", place / "double", processes=2)
    assert losses(place / "double") == pytest.approx(losses(single), rel=1e-4)
