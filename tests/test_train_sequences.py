"""`scripts/train.py` with networks that copy sequences: the same folder, card, evaluation, resuming and processes as any task."""

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from hf_geo.data.sequences.repeat_copy import EVAL, RepeatCopy, all_sizes, collate_sequences
from hf_geo.models import build_copy_model
from hf_geo.tasks import infer_task
from hf_geo.tasks.sequence_copy import score_sequences
from tests.paths import REPOSITORY
from tests.scripts import TRAIN, script
from tests.training.launching import launch_or_fail

RECIPE = ("--config", REPOSITORY / "configs/ali-g/dnc.yaml", "--model_args", "hidden_size=8,memory_size=4,word_size=4",
          "--max_steps", "4", "--logging_steps", "1", "--eval_strategy", "no", "--save_steps", "3", "--max_train_samples", "48",
          "--max_eval_samples", "36", "--disable_tqdm", "true")  # fmt: skip


def train(folder: Path, *words: str | Path) -> Path:
    assert script("train")([*RECIPE, *words, "--output_dir", folder]) == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "copies")


def results(folder: Path) -> dict[str, float]:
    return json.loads((folder / "eval_results.json").read_text())


def test_its_figures_are_those_of_the_exported_network(run) -> None:
    found, model = results(run), build_copy_model(str(run), 6, 5)
    data = RepeatCopy(36, 4, all_sizes(2, 2), (0, EVAL))
    batch = collate_sequences([data[i] for i in range(36)])
    loss, right = score_sequences(model(batch["inputs"]).logits, batch["labels"]).mean(0)[:2].tolist()
    assert (found["eval_loss"], found["eval_sequence_accuracy"]) == pytest.approx((loss, right), rel=1e-5)
    assert (found["eval_samples"], found["sizes_samples"]) == (36, 36)
    assert (
        "sizes_sequence_accuracy/length=6,repeats=6" in found and "eval_sequence_accuracy/length=2,repeats=2" in found
    )


def test_scores_of_right_and_wrong_sequences() -> None:
    labels = torch.tensor([[[-100.0] * 2] * 3 + [[1, 0], [0, 1]], [[-100.0] * 2] * 3 + [[0, 0], [0, 1]]])
    logits = torch.tensor([[[9.0, 9.0]] * 3 + [[8, -8], [-8, 8]], [[9.0, 9.0]] * 3 + [[8, -8], [-8, 8]]])
    losses, right, lengths, repeats = score_sequences(logits, labels).T
    assert right.tolist() == [1, 0] and lengths.tolist() == repeats.tolist() == [1, 1]
    assert losses.tolist() == pytest.approx([4 * 3.354e-4, 8 + 4 * 3.354e-4], rel=1e-3)  # log(1 + exp(-8)) a bit


def test_its_card_opens_it_and_shows_all_sizes(run, monkeypatch, capsys) -> None:
    card = ModelCard.load(run / "README.md")
    assert [result.metric_type for result in card.data.eval_results] == ["sequence_accuracy", "loss"]
    assert "![sequence accuracy by size" in card.content and (run / "figures/sizes.png").is_file()
    (snippet,) = re.findall(r"^```python\n(.*?)^```", card.content, re.M | re.S)
    names: dict = {}
    exec(snippet.replace("FOLDER", str(run)), names)
    assert names["answer"].shape == (5, 5)  # two words twice, and the end
    assert {"modeling_dnc.py", "configuration_dnc.py", "cell.py", "addressing.py"} <= {
        path.name for path in run.iterdir()
    }


def test_it_is_pushed_and_opened_from_the_hub(run, online, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", online.write_token)
    assert script("push")([run, "ada/copies"]) == 0
    again = build_copy_model("ada/copies", 6, 5).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in weights(run).items())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(run, tmp_path) -> None:
    """In the middle of its second epoch."""
    resumed = train(tmp_path / "resumed", "--resume_from_checkpoint", run / "checkpoint-3")
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(run).items())


@pytest.mark.slow
def test_processes_and_accumulation_divide_the_same_sequences(run, tmp_path) -> None:
    halves = train(tmp_path / "halves", "--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "2")
    launch_or_fail(TRAIN, *RECIPE, "--per_device_train_batch_size", "8", "--output_dir", tmp_path / "two", processes=2)
    for folder in (halves, tmp_path / "two"):
        for name, tensor in weights(run).items():
            torch.testing.assert_close(weights(folder)[name], tensor, atol=1e-5, rtol=1e-4)


def test_a_line_of_them_is_evaluated_bit_by_bit(tmp_path, capsys) -> None:
    folder = train(tmp_path / "line", "--subspace", "line", "--max_steps", "2")
    assert script("evaluate")(["--model", folder, "--positions", "3"]) == 0
    found = json.loads((folder / "evaluation.json").read_text())
    centre, labels = found["points"][1], 36 * 5 * 3.25  # each sequence has s r + 1 steps of 5 bits, 3.25 in the mean
    assert 0 < centre["accuracy"] < 1 and (folder / "figures/walk.png").is_file()
    summed = results(folder)["eval_loss"] * 36
    assert found["samples"] == pytest.approx(labels, rel=0.2)
    assert centre["nll"] == pytest.approx(summed / found["samples"], rel=1e-4)


def test_inferred_from_model_or_data() -> None:
    assert infer_task("dnc", None).name == infer_task(None, "repeat-copy").name == "sequence-copy"
