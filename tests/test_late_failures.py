"""No late failure loses a result: each step after training fails in turn, and what was earned before it is kept."""

import contextlib
import io
import json
import logging
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from hf_geo import GeoTrainer
from hf_geo.checkpoints.placing import PARTIAL
from hf_geo.hub.describe import describe
from hf_geo.models import generate_text
from tests.hub.runs import fingerprint
from tests.models.tiny import byte_tokenizer, gpt2
from tests.scripts import script

WORDS = ("--model=test_vit", "--dataset=digits", "--max_steps=1", "--max_train_samples=16", "--max_eval_samples=8",
         "--save_strategy=no", "--report_to=none", "--disable_tqdm=true", "--log_geometry=true", "--logging_steps=1")  # fmt: skip
NETWORK = {"model.safetensors", "config.json", "train_results.json", "training_args.json", "trainer_state.json"}
RESULTS = NETWORK | {"eval_results.json", "card.json"}
ALL = RESULTS | {"README.md", "figures/training.png", "figures/geometry.png"}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def broken(*args, **kwargs):
    raise KeyError("a mistake in the program")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """A run in which nothing fails."""
    folder = tmp_path_factory.mktemp("runs") / "my run"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert script("train")([*WORDS, f"--output_dir={folder}"]) == 0
    assert files(folder) == ALL and f"hf-geo push '{folder}' NAMESPACE/NAME" in out.getvalue()
    return folder


def same_network(run: Path, other: Path) -> bool:
    return (run / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


DESCRIBED = {
    "describe.draw_training_curves": {"figures/training.png"},
    "describe.draw_geometry": {"figures/geometry.png"},
    "card.render_card": {"README.md"},
}


@pytest.mark.parametrize("step", DESCRIBED)
def test_what_describes_a_run_may_fail_and_is_made_again(undisturbed, tmp_path, monkeypatch, caplog, step: str) -> None:
    out = tmp_path / "my run"
    shutil.copytree(undisturbed, out)
    for name in DESCRIBED[step]:
        (out / name).unlink()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "hf_geo"):
        patch.setattr(f"hf_geo.hub.{step}", broken)
        describe(out)
    assert files(out) == ALL - DESCRIBED[step]
    (warning,) = [record.getMessage() for record in caplog.records if "could not be made" in record.getMessage()]
    *command, path = shlex.split(warning.split("`")[1])
    assert (command, path) == (["hf-geo", "card"], str(out))
    assert script("card")([path]) == 0
    assert [name for name in ALL if (out / name).read_bytes() != (undisturbed / name).read_bytes()] == []


def test_a_run_ends_well_without_its_card(undisturbed, tmp_path, monkeypatch, caplog, capsys) -> None:
    monkeypatch.setattr("hf_geo.hub.describe.write_card", broken)
    with caplog.at_level(logging.WARNING, "hf_geo"):
        assert script("train")([*WORDS, f"--output_dir={tmp_path}"]) == 0
    assert files(tmp_path) == ALL - {"README.md"} and same_network(tmp_path, undisturbed)
    assert caplog.text.count("hf-geo card") == 1 and "README.md" not in capsys.readouterr().out


def fail_on_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("step", "failure", "kept", "says"),
    [
        ("hf_geo.GeoTrainer.evaluate", broken, ALL, "could not be evaluated ('a mistake in the program'): `hf-geo evaluate --model "),
        ("hf_geo.GeoTrainer.finalize", broken, ALL, "could not be evaluated ('a mistake in the program')"),
        ("hf_geo.runs.report.write_results", fail_on_disk, NETWORK, "results could not be written there ([Errno 28] No space left on device): they are {\"eval_loss\": "),
    ],
    ids=("evaluation", "norm statistics", "results"),
)  # fmt: skip
def test_a_failure_after_training_keeps_the_network(
    undisturbed, tmp_path, monkeypatch, capsys, step: str, failure: Callable, kept: set[str], says: str
) -> None:
    out = tmp_path / "my run"
    monkeypatch.setattr(step, failure)
    with pytest.raises(SystemExit) as stop:
        script("train")([*WORDS, f"--output_dir={out}"])
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and sentence.startswith("train.py: error: ") and says in sentence
    assert str(out) in sentence and same_network(out, undisturbed)
    assert files(out) == kept
    if "README.md" in kept:
        assert "It was not evaluated." in (out / "README.md").read_text()
        assert json.loads((out / "eval_results.json").read_text()) == {}


def test_a_partial_result_is_named_and_kept(tmp_path, monkeypatch, capsys) -> None:
    """The weights are written, and what is written after them fails."""
    out = tmp_path / "run"
    monkeypatch.setattr("hf_geo.experiments.training_run.write_results", broken)
    with pytest.raises(SystemExit) as stop:
        script("train")([*WORDS, f"--output_dir={out}"])
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and f"the part that was written is in '{out / PARTIAL}'" in sentence
    weights = (out / PARTIAL / "model.safetensors").read_bytes()
    before = fingerprint(out)
    with pytest.raises(SystemExit):
        script("train")([*WORDS, f"--output_dir={out}"])
    assert f"holds an unfinished result ({PARTIAL})" in capsys.readouterr().err and fingerprint(out) == before
    monkeypatch.undo()

    def look(*args, **kwargs):
        assert (out / PARTIAL / "model.safetensors").read_bytes() == weights  # until there is something better
        return original(*args, **kwargs)

    original = GeoTrainer.train
    monkeypatch.setattr(GeoTrainer, "train", look)
    assert script("train")([*WORDS, f"--output_dir={out}", "--overwrite=true"]) == 0
    assert files(out) == ALL


@pytest.mark.parametrize(
    ("broken_name", "says"),
    [
        ("hf_geo.hub.export.save_file", "The network could be trained but not saved ('a mistake in the program')"),
        ("transformers.AutoImageProcessor.from_pretrained", "could be trained but not saved"),
    ],
    ids=("weights", "processor"),
)
def test_what_could_not_be_exported_is_not_trained(tmp_path, monkeypatch, capsys, broken_name: str, says: str) -> None:
    monkeypatch.setattr(broken_name, broken)
    with pytest.raises(SystemExit) as stop:
        script("train")([*WORDS, f"--output_dir={tmp_path / 'out'}"])
    assert stop.value.code == 2 and says in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


POSITIONS = 40


@pytest.fixture(scope="module")
def language_run(tmp_path_factory) -> Path:
    """A byte-level GPT-2 with fewer positions than a sample has words; it never ends a text."""
    folder = tmp_path_factory.mktemp("language")
    model = gpt2(n_positions=POSITIONS)
    model.generation_config.suppress_tokens = [0]
    model.save_pretrained(folder / "base")
    byte_tokenizer(model_max_length=POSITIONS).save_pretrained(folder / "base")
    (folder / "data").mkdir()
    for split in ("train", "validation"):
        (folder / "data" / f"{split}.txt").write_text("to be or not to be that is the question\n" * 20)
    words = (f"--model={folder / 'base'}", f"--dataset={folder / 'data'}", "--max_steps=1", "--save_strategy=no")
    with contextlib.redirect_stdout(io.StringIO()):
        assert script("train")([*words, "--disable_tqdm=true", f"--output_dir={folder / 'run'}"]) == 0
    return folder / "run"


def test_a_sample_fits_the_models_positions(language_run) -> None:
    card = (language_run / "README.md").read_text()
    assert "What it says, drawn from the exported checkpoint:\n\n> to be" in card
    assert f"max_new_tokens={POSITIONS - len('to be')}" in card
    model = AutoModelForCausalLM.from_pretrained(language_run)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(language_run)
    with pytest.raises(ValueError, match="leaves none of the model's positions"):
        generate_text(model, tokenizer, "x" * POSITIONS)


def test_a_card_does_without_a_sample(language_run, monkeypatch, caplog) -> None:
    monkeypatch.setattr("hf_geo.hub.describe.generate_text", broken)
    with caplog.at_level(logging.WARNING, "hf_geo"):
        assert describe(language_run, trust_remote_code=True).missing == ["The sample of text"]
    assert f"`hf-geo card {language_run} --trust_remote_code true`" in caplog.text
    card = (language_run / "README.md").read_text()
    assert "AutoModelForCausalLM" in card and "What it says" not in card
    monkeypatch.undo()
    assert describe(language_run).missing == [] and "What it says" in (language_run / "README.md").read_text()
    assert load_file(language_run / "model.safetensors")
