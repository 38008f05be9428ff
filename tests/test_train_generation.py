"""`scripts/train.py` on images to generate: the folder, the card and its pictures, resuming, and `scripts/evaluate.py`."""

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

from hf_geo.models.sources import ModelSource
from hf_geo.tasks.image_generation import run_comparison
from tests.data.images import encoded, photo
from tests.scripts import TRAIN, script
from tests.training.launching import launch_or_fail

SMALL = (
    "--model", "resnet_gan", "--model_args", "width=4,chunk_dim=2,class_dim=4,norm_momentum=0.1", "--image_size", "16",
    "--optim", "adam", "--per_device_train_batch_size", "8", "--max_train_samples", "16", "--max_eval_samples", "60",
    "--logging_steps", "1", "--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "steps", "--eval_steps", "2",
    "--disable_tqdm", "true", "--use_cpu", "true",
)  # fmt: skip
DIGITS = (*SMALL, "--dataset", "digits", "--max_steps", "4", "--eval_on_start", "true", "--ema_decay", "0.5")


def run_script(name: str, *words: str | Path) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert script(name)(words) == 0
    return said.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    run_script("train", *DIGITS, "--output_dir", folder)
    return folder


def test_the_card_says_what_was_measured_and_shows_it(run) -> None:
    card, results = ModelCard.load(run / "README.md"), json.loads((run / "eval_results.json").read_text())
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert measured["frechet_distance"] == results["test_frechet_distance"] and "fid" not in measured
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert "Fréchet distance in the features of colours of 4 x 4 fields" in card.content and "FID" not in card.content
    for name in ("figures/training.png", "figures/samples/step-0000004.png", "figures/samples.gif"):
        assert f"]({name})" in card.content and (run / name).is_file()
    assert Image.open(run / "figures/samples.gif").n_frames == 3  # updates 0, 2 and 4
    assert Image.open(run / "figures/samples/step-0000000.png").size == (10 * 18 + 2, 10 * 18 + 2)
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    assert [row["step"] for row in history if "eval_frechet_distance" in row][:3] == [0, 2, 4]
    assert [row["step"] for row in history if "generator_loss" in row] == [1, 2, 3, 4]


def test_it_is_pushed_and_opened_from_the_hub(run, online, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", online.write_token)
    run_script("push", run, "ada/digits")
    again = AutoModel.from_pretrained("ada/digits").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in load_file(run / "model.safetensors").items())


def test_a_resumed_run_ends_with_the_same_weights_and_averages(run, tmp_path) -> None:
    run_script("train", *DIGITS, "--resume_from_checkpoint", run / "checkpoint-3", "--output_dir", tmp_path)
    for name in ("model.safetensors", "checkpoint-4/model.safetensors"):
        resumed, unbroken = (load_file(folder / name) for folder in (tmp_path, run))
        assert [key for key in unbroken if not torch.equal(resumed[key], unbroken[key])] == []


@pytest.mark.slow
def test_a_trained_network_is_measured_again_with_pictures(run, tmp_path) -> None:
    words = ("--model", run, "--max_eval_samples", "60", "--device", "cpu", "--output_dir", tmp_path)
    assert "Fréchet distance" in run_script("evaluate", *words)
    (found,) = json.loads((tmp_path / "evaluation.json").read_text())["points"]
    assert found["frechet_distance"] > 0 and 0 <= found["recall"] <= 1
    assert all((tmp_path / f"figures/{name}.png").is_file() for name in ("samples", "interpolation"))


@pytest.mark.parametrize(
    ("settings", "asked", "expected"),
    [
        ({}, None, (None, "standard")),
        ({"fid_model": "ada/classifier", "fid_protocol": "fromage"}, None, ("ada/classifier", "fromage")),
        ({"fid_model": "classifier", "fid_protocol": "fromage"}, "runs/classifier", ("runs/classifier", "fromage")),
        ({"fid_model": "weights.pth"}, None, "in the features of 'weights.pth', whose path it does not keep"),
    ],
)
def test_images_are_compared_as_in_the_run(tmp_path, settings: dict, asked: str | None, expected) -> None:
    (tmp_path / "training_args.json").write_text(json.dumps(settings))
    source = ModelSource("folder", str(tmp_path), {})
    if isinstance(expected, tuple):
        assert run_comparison(source, asked) == expected
    else:
        with pytest.raises(ValueError, match=expected):
            run_comparison(source, asked)


@pytest.mark.slow
def test_images_without_classes_are_compared_as_the_paper_did(tmp_path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(30):
        (tmp_path / f"data/{number}.png").write_bytes(encoded(photo(20 + number % 3, 20)))
    words = (*SMALL, "--dataset", tmp_path / "data", "--max_steps", "1", "--fid_protocol", "fromage")
    run_script("train", *words, "--output_dir", tmp_path / "run")
    card = (tmp_path / "run/README.md").read_text()
    assert "Evaluated on the first 16 of the training images, as published." in card
    assert "stretched to the whole range" in card and "num_images=10" in card
    # An evaluation measures what the run did, in the same way.
    words = ("--model", tmp_path / "run", "--dataset", tmp_path / "data", "--seed", "42", "--device", "cpu")
    text = run_script("evaluate", *words)
    (found,) = json.loads((tmp_path / "run/evaluation.json").read_text())["points"]
    measured = json.loads((tmp_path / "run/eval_results.json").read_text())["eval_frechet_distance"]
    assert found["frechet_distance"] == pytest.approx(measured, rel=1e-4) and found["protocol"] == "fromage"
    assert "| colours of 4 x 4 fields |  fromage |" in text and "16 images on the eval split of data." in text
    assert AutoConfig.from_pretrained(tmp_path / "run").num_classes == 0


@pytest.mark.slow
def test_two_processes_and_bf16(tmp_path) -> None:
    words = ("--max_steps", "2", "--dataset", "digits", "--bf16", "true", "--gradient_accumulation_steps", "2")
    launch_or_fail(TRAIN, *SMALL, *words, "--output_dir", tmp_path, processes=2)
    assert json.loads((tmp_path / "eval_results.json").read_text())["test_frechet_distance"] > 0
