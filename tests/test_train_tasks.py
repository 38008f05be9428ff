"""`scripts/train.py` beyond one image classifier: language models and subspaces, through the same folder and card."""

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from hf_geo import Subspace
from hf_geo.tasks import infer_task
from hf_geo.tasks.causal_lm import choose_prompt
from tests.paths import REPOSITORY, SHARED
from tests.scripts import TRAIN
from tests.training.launching import launch_or_fail

CONFIGS = REPOSITORY / "configs"
SMALL = ("--model_args", "d_model=16,d_hid=16", "--max_steps", "4", "--disable_tqdm", "true", "--save_strategy", "no")
WIKITEXT = SHARED / "hub/datasets/Salesforce/wikitext"
TIMES = re.compile(rb'"[a-z_]*(runtime|per_second|seconds)": [0-9.e+-]+')
GENERATE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
inputs = tokenizer("the class of the", return_tensors="pt")
print("hf_geo" in sys.modules, len(model.generate(**inputs, max_new_tokens=5, do_sample=False)[0]) > 4)
"""


@pytest.fixture(scope="module")
def language_run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "docs"
    launch_or_fail(TRAIN, "--config", CONFIGS / "fromage/quickstart_docs.yaml", *SMALL, "--output_dir", folder)
    return folder


def test_a_language_model_generates_in_a_fresh_process_without_hf_geo(language_run) -> None:
    assert launch_or_fail("-c", GENERATE, language_run).stdout.split()[-2:] == ["False", "True"]


def test_its_card_tells_the_perplexity_and_shows_a_sample(language_run) -> None:
    card = ModelCard.load(language_run / "README.md")
    results = json.loads((language_run / "eval_results.json").read_text())
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert measured["perplexity"] == results["test_perplexity"] < results["test_tokens"]
    assert card.data.pipeline_tag == "text-generation"
    assert "over the whole stream in 10 columns, read in windows of 35" in card.content
    assert "drawn from the exported checkpoint:\n\n> " in card.content


def test_two_processes_share_the_columns(tmp_path) -> None:
    words = (
        "--config",
        CONFIGS / "fromage/quickstart_docs.yaml",
        *SMALL,
        "--model_args",
        "d_model=16,d_hid=16,dropout=0.0",
    )
    logs = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        launch_or_fail(TRAIN, *words, "--logging_steps", "1", "--output_dir", folder, processes=processes)
        history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        logs.append(
            [row["loss"] for row in history if "loss" in row]
            + [row["eval_perplexity"] for row in history if "eval_perplexity" in row]
        )
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


@pytest.mark.parametrize(
    ("model", "dataset", "task"),
    [
        ("resnet18", "uoft-cs/cifar10", "image-classification"),
        ("word_transformer", "Salesforce/wikitext", "causal-lm"),
        (None, "docs", "causal-lm"),
        (None, "digits", "image-classification"),
    ],
)
def test_the_task_is_told_from_model_and_data(model, dataset, task) -> None:
    assert infer_task(model, dataset).name == task


def test_the_task_of_a_folder_is_told_from_its_configuration(language_run) -> None:
    assert infer_task(str(language_run), "anything").name == "causal-lm"


@pytest.mark.parametrize("unknown", ("<unk>", None))
def test_a_cards_sample_begins_with_words_the_model_knows(unknown: str | None) -> None:
    class Words:
        unk_token_id = None if unknown is None else 0

        def decode(self, ids: torch.Tensor) -> str:
            return " ".join(f"w{i}" for i in ids.tolist())

    words = choose_prompt(torch.tensor([0, 0, 0, 0, 0, 0, 7, 0, 8]), Words())
    assert words == ("w7 w8" if unknown else "w0 w0 w0 w0 w0 w0")


@pytest.fixture(scope="module")
def line(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "line"
    launch_or_fail(
        TRAIN, "--config", CONFIGS / "subspaces/quickstart_line.yaml", "--model", "test_resnet", "--max_steps", "12",
        "--eval_strategy", "steps", "--eval_steps", "6", "--save_strategy", "steps", "--save_steps", "6",
        "--load_best_model_at_end", "true", "--disable_tqdm", "true", "--output_dir", folder,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def cifar_line(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "cifar_line"
    launch_or_fail(
        TRAIN, "--model", "cifar_resnet20", "--dataset", SHARED / "hub/datasets/uoft-cs/cifar10", "--subspace", "line",
        "--optim", "fromage", "--max_train_samples", "640", "--max_eval_samples", "200", "--max_steps", "6",
        "--save_strategy", "no", "--disable_tqdm", "true", "--output_dir", folder,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("name", ("line", "cifar_line"))
def test_the_exported_network_is_the_centre_of_the_saved_line(name, request) -> None:
    from hf_geo.models import build_image_classifier

    line = request.getfixturevalue(name)
    model = build_image_classifier(str(line), num_classes=10)
    subspace = Subspace.load(line, model)
    exported = load_file(line / "model.safetensors")
    centre = {name.removeprefix("timm_model."): tensor for name, tensor in subspace.folded_state_dict(0.5).items()}
    assert all(torch.equal(exported[name], centre[name]) for name in exported) and set(exported) == set(centre)
    ends = [subspace.point_state_dict(i)["timm_model.fc.weight"] for i in range(2)]
    assert (ends[0] - ends[1]).norm() > 0.1 * ends[0].norm()


def test_a_lines_card_says_so(line) -> None:
    card = ModelCard.load(line / "README.md")
    assert {"neural-network-subspace", "arxiv:2102.10472"} <= set(card.data.tags)
    assert "the centre of a line of 2 networks" in card.content and "Subspace.load(" in card.content
    assert "(373,658 parameters)" in card.content  # of one network


def test_two_runs_differ_in_nothing(language_run, tmp_path) -> None:
    launch_or_fail(
        TRAIN, "--config", CONFIGS / "fromage/quickstart_docs.yaml", *SMALL, "--output_dir", tmp_path / "docs"
    )
    compared = 0
    for path in sorted(
        path for path in language_run.rglob("*") if path.suffix in (".safetensors", ".json", ".py", ".png")
    ):
        ours, theirs = path.read_bytes(), (tmp_path / "docs" / path.relative_to(language_run)).read_bytes()
        if path.name.endswith(("results.json", "trainer_state.json", "card.json")):  # which also tell how long it took
            ours, theirs = (TIMES.sub(b"", text) for text in (ours, theirs))
        assert ours == theirs, path.name
        compared += 1
    assert compared >= 8


def test_a_line_of_language_models(tmp_path) -> None:
    words = ("--config", CONFIGS / "fromage/wikitext2_line.yaml", "--dataset", WIKITEXT, "--max_train_samples", "2000")
    launch_or_fail(TRAIN, *words, *SMALL, "--output_dir", tmp_path / "run")
    assert (tmp_path / "run" / "subspace.safetensors").is_file()
    assert launch_or_fail("-c", GENERATE, tmp_path / "run").stdout.split()[-2:] == ["False", "True"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", (1, 2))
def test_wikitext2(tmp_path, processes: int) -> None:
    """An independent run of the original model reached a validation perplexity of 727 after 300 updates.

    Evaluating the first 1,000 of 3,760 lines, and as many of the test split, takes a quarter of the minutes.
    """
    launch_or_fail(
        TRAIN, "--config", CONFIGS / "fromage/wikitext2.yaml", "--dataset", WIKITEXT, "--max_steps", "300",
        "--save_strategy", "no", "--max_eval_samples", "1000", "--disable_tqdm", "true", "--output_dir", tmp_path,
        processes=processes, timeout=1500,
    )  # fmt: skip
    assert json.loads((tmp_path / "eval_results.json").read_text())["eval_perplexity"] < 1000
