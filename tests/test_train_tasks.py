"""`scripts/train.py` beyond one image classifier: language models and subspaces, through the same folder and card."""

import contextlib
import io
import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hf_geo import Subspace
from hf_geo.data.columns import match_classes
from hf_geo.models import build_image_classifier
from hf_geo.models.sources import find_model
from hf_geo.tasks import infer_task
from hf_geo.tasks.causal_lm import choose_prompt
from hf_geo.tasks.classifiers import class_names
from tests.models.tiny import bert, gpt2, resnet, vit
from tests.paths import REPOSITORY, SHARED
from tests.scripts import TRAIN, script
from tests.training.launching import launch_or_fail

CONFIGS = REPOSITORY / "configs"
DOCS = ("--config", CONFIGS / "fromage/quickstart_docs.yaml", "--model_args", "d_model=16,d_hid=16,dropout=0.0",
        "--max_steps", "4", "--logging_steps", "1", "--disable_tqdm", "true", "--save_strategy", "no")  # fmt: skip
TIMES = re.compile(rb'"[a-z_]*(runtime|per_second|seconds)": [0-9.e+-]+')


def train(folder: Path, *words: str | Path) -> Path:
    with contextlib.redirect_stdout(io.StringIO()):
        assert script("train")([*words, "--output_dir", folder]) == 0
    return folder


@pytest.fixture(scope="module")
def language_run(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "docs", *DOCS)


def test_its_card_tells_the_perplexity_and_shows_a_sample(language_run) -> None:
    card = ModelCard.load(language_run / "README.md")
    results = json.loads((language_run / "eval_results.json").read_text())
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert measured["perplexity"] == results["test_perplexity"] < results["test_tokens"]
    assert card.data.pipeline_tag == "text-generation"
    assert "over the whole stream in 10 columns, read in windows of 35" in card.content
    assert "drawn from the exported checkpoint:\n\n> " in card.content


@pytest.mark.parametrize(
    ("make", "classes"), [(vit, 2), (bert, 2), (partial(vit, num_labels=3), 3), (gpt2, 0), (resnet, 2)]
)
def test_classes_without_names_are_counted_as_transformers_does(make, classes: int, tmp_path) -> None:
    make().save_pretrained(tmp_path)
    names = class_names(find_model(str(tmp_path)))
    assert len(names) == classes and match_classes(names, ["a", "b", "c"][:classes], "model", "data").tolist() == list(
        range(classes)
    )


def history(folder: Path) -> list[float]:
    rows = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [row[name] for row in rows for name in ("loss", "eval_perplexity") if name in row]


@pytest.mark.slow
def test_two_processes_share_the_columns(language_run, tmp_path) -> None:
    launch_or_fail(TRAIN, *DOCS, "--output_dir", tmp_path, processes=2)
    assert history(tmp_path) == pytest.approx(history(language_run), rel=1e-4) and len(history(tmp_path)) > 4


@pytest.mark.slow
def test_two_runs_differ_in_nothing(language_run, tmp_path) -> None:
    """The second is in a process of its own."""
    launch_or_fail(TRAIN, *DOCS, "--output_dir", tmp_path / "docs")
    compared = [path for path in language_run.rglob("*") if path.suffix in (".safetensors", ".json", ".py", ".png")]
    assert len(compared) >= 8
    for path in compared:
        ours, theirs = path.read_bytes(), (tmp_path / "docs" / path.relative_to(language_run)).read_bytes()
        if path.name.endswith(("results.json", "trainer_state.json", "card.json")):  # which also tell how long it took
            ours, theirs = (TIMES.sub(b"", text) for text in (ours, theirs))
        assert ours == theirs, path.name


def test_the_task_is_inferred_from_model_and_data(language_run) -> None:
    tasks = {
        ("resnet18", "uoft-cs/cifar10"): "image-classification",
        ("word_transformer", "Salesforce/wikitext"): "causal-lm",
        (None, "docs"): "causal-lm",
        (None, "digits"): "image-classification",
        (str(language_run), "anything"): "causal-lm",  # by its configuration
        ("dnc", "docs"): "sequence-copy",  # the model comes first
        ("resnet_gan", "glosses"): "unconditional-image-generation",
    }
    assert {names: infer_task(*names).name for names in tasks} == tasks


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
    return train(
        tmp_path_factory.mktemp("runs") / "line",
        "--config", CONFIGS / "subspaces/quickstart_line.yaml", "--model", "test_resnet", "--max_steps", "4",
        "--eval_strategy", "steps", "--eval_steps", "2", "--save_strategy", "steps", "--save_steps", "2",
        "--load_best_model_at_end", "true", "--disable_tqdm", "true",
    )  # fmt: skip


def is_centre(folder: Path, model: torch.nn.Module, weight: str, prefix: str) -> bool:
    """Whether the exported network is the centre of the line beside it, whose ends are apart."""
    subspace, exported = Subspace.load(folder, model), load_file(folder / "model.safetensors")
    centre = {name.removeprefix(prefix): tensor for name, tensor in subspace.folded_state_dict(0.5).items()}
    ends = [subspace.point_state_dict(i)[weight] for i in range(2)]
    assert (ends[0] - ends[1]).norm() > 0.1 * ends[0].norm()
    return set(exported) <= set(centre) and all(torch.equal(exported[name], centre[name]) for name in exported)


def test_the_exported_network_is_the_centre_of_the_saved_line(line) -> None:
    model = build_image_classifier(str(line), num_classes=10)
    assert is_centre(line, model, "timm_model.fc.weight", "timm_model.")


def test_a_lines_card_says_so(line) -> None:
    card = ModelCard.load(line / "README.md")
    assert {"neural-network-subspace", "arxiv:2102.10472"} <= set(card.data.tags)
    assert "the centre of a line of 2 networks" in card.content and "Subspace.load(" in card.content
    assert "(373,658 parameters)" in card.content  # of one network


def test_a_line_of_language_models(tmp_path) -> None:
    train(tmp_path / "run", *DOCS, "--subspace", "line", "--max_eval_samples", "200")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run", trust_remote_code=True)
    # Its code lies beside it: a process without hf_geo opens such a folder (tests/models/test_language.py).
    assert "AutoModelForCausalLM" in model.config.auto_map and (tmp_path / "run" / "word_transformer.py").is_file()
    weight = next(name for name, _ in model.named_parameters() if "weight" in name)
    assert is_centre(tmp_path / "run", model, weight, "")


@pytest.mark.slow
def test_wikitext2(tmp_path) -> None:
    """An independent run of the original model reached a validation perplexity of 727 after 300 updates.

    Only the first 400 of 3,760 lines are evaluated, and as many of the test split.
    """
    launch_or_fail(
        TRAIN, "--config", CONFIGS / "fromage/wikitext2.yaml", "--dataset", SHARED / "hub/datasets/Salesforce/wikitext",
        "--max_steps", "300", "--save_strategy", "no", "--load_best_model_at_end", "false", "--max_eval_samples", "400", "--disable_tqdm", "true",
        "--output_dir", tmp_path, timeout=1500,
    )  # fmt: skip
    assert json.loads((tmp_path / "eval_results.json").read_text())["eval_perplexity"] < 1000
