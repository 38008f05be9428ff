"""`scripts/merge.py` on small trained runs: barriers, soups, interpolation, a trained bend, adapters, and their folders."""

import json
import re
import shutil
from pathlib import Path

import peft
import pytest
import timm
import torch
import transformers
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

from hf_geo.models import WordTransformerConfig, WordTransformerForCausalLM
from tests.models.tiny import byte_tokenizer, gpt2
from tests.paths import REPOSITORY
from tests.scripts import script

merge, evaluate, train = script("merge"), script("evaluate"), script("train")
DATA = ("--dataset", "digits", "--max_train_samples", 256, "--max_eval_samples", 100)
QUICK = ("--recalibration_batches", 2)
WALK = (*QUICK, "--positions", 3)
QUIET = ("--save_strategy", "no", "--eval_strategy", "no", "--report_to", "none", "--disable_tqdm", "true")


def run(folder: Path, *words: object) -> Path:
    optimizer = ("--optim", "sgd", "--optim_args", "momentum=0.9", "--learning_rate", 0.05)
    assert train([*DATA, *optimizer, *QUIET, *words, "--output_dir", folder]) == 0
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, two of its fine-tunings, and a network of another seed."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        run(folder / f"seed{seed}", "--model", "test_resnet", "--seed", seed, "--max_steps", 40)
    for seed, rate in ((2, 0.01), (3, 0.03)):
        first = ("--model", folder / "seed0", "--seed", seed, "--learning_rate", rate)
        run(folder / f"tuned{rate}", *first, "--max_steps", 12)
    return folder


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def snippets(folder: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.M | re.S)


def test_the_ends_of_a_barrier_are_the_runs_own_results(runs: Path, tmp_path: Path, capsys) -> None:
    pair = ("--model", runs / "seed0", "--model", runs / "seed1")
    assert merge(["--method", "barrier", *pair, *QUICK, "--positions", 5, "--output_dir", tmp_path / "out"]) == 0
    assert "They are not linearly connected, as networks of different initialisations" in capsys.readouterr().out
    found = read(tmp_path / "out", "merge.json")
    assert evaluate([*pair, "--output_dir", tmp_path / "own"]) == 0
    own = read(tmp_path / "own", "evaluation.json")["points"]
    trained = [read(runs / name, "eval_results.json")["test_accuracy"] for name in ("seed0", "seed1")]
    metrics = ("accuracy", "loss", "nll", "brier", "ece")
    assert set(found["curves"]) == {"statistics taken anew", "statistics interpolated"}
    for rows in found["curves"].values():
        ends = [{name: row[name] for name in metrics} for row in (rows[0], rows[-1])]
        assert ends == [{name: row[name] for name in metrics} for row in own]  # bit by bit
        assert [row["accuracy"] for row in ends] == pytest.approx(trained, abs=1e-6)  # the Trainer's is a float32
    for name, rows in found["curves"].items():
        errors = [1 - row["accuracy"] for row in rows]
        assert found["barrier"][name]["error"] == max(errors) - (errors[0] + errors[-1]) / 2
    assert Image.open(tmp_path / "out" / "figures" / "merge.png").size[0] > 600
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_soup_opens_in_both_libraries_with_its_own_statistics_and_says_what_it_is(runs: Path, tmp_path: Path) -> None:
    parents = [runs / name for name in ("seed0", "tuned0.01", "tuned0.03")]
    words = [word for parent in parents for word in ("--model", parent)]
    assert merge(["--method", "average", *words, *QUICK, "--output_dir", tmp_path / "soup"]) == 0
    states, soup = [weights(parent) for parent in parents], weights(tmp_path / "soup")
    for name, value in soup.items():
        mean = sum(state[name].double() for state in states) / 3
        if "running" in name:
            assert not torch.allclose(value.double(), mean, rtol=1e-3)  # taken anew
        elif value.is_floating_point():
            torch.testing.assert_close(value, mean.float(), rtol=1e-6, atol=1e-7)
    found = read(tmp_path / "soup", "merge.json")
    assert [row["name"] for row in found["points"]] == [*(parent.name for parent in parents), "merged"]
    assert [row["coefficient"] for row in found["parents"]] == [1 / 3] * 3
    assert evaluate(["--model", tmp_path / "soup"]) == 0  # on the data that it remembers
    assert read(tmp_path / "soup", "evaluation.json")["points"][0]["loss"] == found["points"][-1]["loss"]
    model = timm.create_model(f"local-dir:{tmp_path / 'soup'}", pretrained=True).eval()
    (code,), names = snippets(tmp_path / "soup"), {}
    exec(code.replace("FOLDER", str(tmp_path / "soup")), names)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(names["model"](images).logits, model(images))
    card = (tmp_path / "soup" / "README.md").read_text()
    assert "were taken anew, from 256 training samples." in card and "| tuned0.03 | 0.333333 |" in card


@pytest.mark.slow
def test_a_greedy_soup_is_never_below_its_best_member_on_validation(runs: Path, tmp_path: Path) -> None:
    parents = [runs / name for name in ("tuned0.01", "seed1", "tuned0.03", "seed0")]
    words = [word for parent in parents for word in ("--model", parent)]
    for metric, sign in (("accuracy", 1), ("nll", -1)):
        out = tmp_path / metric
        assert merge(["--method", "greedy", "--metric", metric, *words, *QUICK, "--output_dir", out]) == 0
        found = read(out, "merge.json")
        assert evaluate([*words, "--trust", "--output_dir", tmp_path / "own"]) == 0
        losses = [row["validation_loss"] for row in read(tmp_path / "own", "evaluation.json")["points"]]
        if metric == "nll":
            assert found["validation"]["value"] <= min(losses) + 1e-9
        assert found["validation"]["metric"] == metric and sign * found["validation"]["value"] > -10
        coefficients = [row["coefficient"] for row in found["parents"]]
        assert coefficients[1] in (0, 1) and sum(coefficients) == pytest.approx(1)  # another seed never joins


@pytest.mark.parametrize("position", [0, 1])
def test_an_interpolation_is_bit_equal_to_a_parent_at_its_end(runs: Path, tmp_path: Path, position: int) -> None:
    pair = [runs / "seed0", runs / "tuned0.03"]
    words = ("--method", "interpolate", "--model", pair[0], "--model", pair[1], "--position", position)
    assert merge([*words, *WALK, "--also_dataset", "digits", "--output_dir", tmp_path / "end"]) == 0
    own, found = weights(pair[position]), weights(tmp_path / "end")
    assert found.keys() == own.keys() and all(torch.equal(found[name], value) for name, value in own.items())
    results = read(tmp_path / "end", "merge.json")
    assert results["points"][-1] == results["points"][position] | {"name": "merged"}
    assert [*results["curves"]] == ["digits", "digits (2)"]
    assert "A point on the straight line between 2 networks. It has" in (tmp_path / "end" / "README.md").read_text()


@pytest.mark.slow
def test_a_position_is_chosen_by_validation_and_reported_on_test(runs: Path, tmp_path: Path) -> None:
    words = ("--method", "interpolate", "--model", runs / "seed0", "--model", runs / "tuned0.03", "--select_position")
    assert merge([*words, *QUICK, "--positions", 5, "--output_dir", tmp_path / "out"]) == 0
    found = read(tmp_path / "out", "merge.json")
    (rows,) = found["curves"].values()
    best = min(range(5), key=lambda i: rows[i]["validation_loss"])
    assert found["position"] == best / 4
    assert found["points"][-1]["loss"] == pytest.approx(rows[best]["loss"], abs=1e-5)
    assert found["split"] == "test" and rows[best]["loss"] != rows[best]["validation_loss"]


@pytest.mark.slow
def test_a_task_whose_main_metric_no_walk_measures_is_merged_by_its_loss(tmp_path: Path, capsys) -> None:
    sizes = ("--dataset", "repeat-copy", "--model", "dnc", "--max_train_samples", 16, "--max_eval_samples", 8)
    for seed in (0, 1):
        assert train([*sizes, *QUIET, "--seed", seed, "--max_steps", 1, "--output_dir", tmp_path / f"{seed}"]) == 0
    pair = ("--model", tmp_path / "0", "--model", tmp_path / "1", "--output_dir", tmp_path / "out")
    with pytest.raises(SystemExit):
        merge(["--method", "greedy", *pair])
    assert "repeat-copy is drawn as it is needed and has no validation split" in capsys.readouterr().err
    assert merge(["--method", "average", *pair]) == 0
    assert read(tmp_path / "out", "merge.json")["metric"] == "loss"
    assert "The weighted average of 2 networks. It has" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_a_bend_is_trained_between_two_fixed_networks(runs: Path, tmp_path: Path) -> None:
    recipe, noisy = tmp_path / "bend.yaml", tmp_path / "noisy"
    base = REPOSITORY / "configs" / "subspaces" / "_base.yaml"
    recipe.write_text(f"base: {base}\nlearning_rate: 0.02\nmax_steps: 3\nsave_strategy: 'no'\nreport_to: none\n")
    shutil.copytree(runs / "seed0", noisy)
    idle = {"augmentation": "none", "crop_shift": 2}  # as where a recipe shifts images and its variant does not
    brought = {"normalization": "imagenet", "interpolation": "bicubic"}  # by the ends, and so by the bend
    settings = read(noisy, "training_args.json") | {"label_noise": 0.25, "label_noise_seed": 3, **idle, **brought}
    (noisy / "training_args.json").write_text(json.dumps(settings))
    words = ("--recipe", recipe, "--model", noisy, "--model", runs / "seed1", "--seed", 7)
    assert merge(["--method", "curve", *words, *WALK, "--output_dir", tmp_path / "bend"]) == 0
    settings = read(tmp_path / "bend", "training_args.json")
    kept = {"seed": 7, "label_noise": 0.25, "label_noise_seed": 3, "normalization": "data"}
    assert settings | kept == settings
    points = load_file(tmp_path / "bend" / "subspace.safetensors")
    ends = [weights(runs / name) for name in ("seed0", "seed1")]
    spanned = [name.removeprefix("point0.timm_model.") for name in points if name.startswith("point0.")]
    assert len(spanned) > 10
    for name in spanned:
        assert torch.equal(points[f"point0.timm_model.{name}"], ends[0][name])
        assert torch.equal(points[f"point2.timm_model.{name}"], ends[1][name])
    assert any(not torch.allclose(points[f"point1.timm_model.{n}"], (ends[0][n] + ends[1][n]) / 2) for n in spanned)
    assert [row["position"] for row in read(tmp_path / "bend", "evaluation.json")["points"]] == [0, 0.5, 1]
    assert "between two trained networks" in (tmp_path / "bend" / "README.md").read_text()


@pytest.mark.slow
def test_a_bend_reads_words_by_the_vocabulary_of_its_ends(tmp_path: Path, capsys) -> None:
    sizes = ("--max_train_samples", 64, "--max_eval_samples", 16, "--max_steps", 1)
    words = ("--config", "ali-g/quickstart_glosses", *sizes, *QUIET, "--load_best_model_at_end", "false")
    for seed in (0, 1):
        assert train([*words, "--seed", seed, "--output_dir", tmp_path / f"{seed}"]) == 0
    recipe = tmp_path / "bend.yaml"
    recipe.write_text("optim: sgd\nlearning_rate: 0.1\nmax_steps: 1\nsave_strategy: 'no'\nreport_to: none\n")
    pair = ("--model", tmp_path / "0", "--model", tmp_path / "1", "--positions", 3, "--output_dir", tmp_path / "bend")
    with pytest.raises(SystemExit):
        merge(["--method", "curve", "--recipe", recipe, *pair, "--min_frequency", 3])
    assert "--min_frequency 3 is for 'bilstm_nli'" in capsys.readouterr().err
    assert merge(["--method", "curve", "--recipe", recipe, *pair]) == 0
    ends, found = [weights(tmp_path / name) for name in "01"], load_file(tmp_path / "bend" / "subspace.safetensors")
    names = [name.removeprefix("point0.") for name in found if name.startswith("point0.")]
    assert names and all(torch.equal(found[f"point{2 * i}.{name}"], ends[i][name]) for i in (0, 1) for name in names)


@pytest.mark.slow
def test_classifiers_of_different_classes_are_merged_without_the_head_where_asked(
    runs: Path, tmp_path: Path, capsys
) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs / "tuned0.03", other)
    config = read(other, "config.json")
    (other / "config.json").write_text(
        json.dumps(config | {"label_names": [*"abcdefghij"], "id2label": None, "label2id": None})
    )
    pair = ("--model", runs / "seed0", "--model", other)
    words = ["--method", "average", *pair, *QUICK, "--output_dir", tmp_path / "out"]
    with pytest.raises(SystemExit):
        merge(words)
    assert "The models have different classes" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert merge([*words, "--without_head"]) == 0
    first, second, found = weights(runs / "seed0"), weights(other), weights(tmp_path / "out")
    assert torch.equal(found["fc.weight"], first["fc.weight"])
    rows = [row["name"] for row in read(tmp_path / "out", "merge.json")["points"]]
    assert rows == ["seed0", "other with the head of seed0", "merged"]
    torch.testing.assert_close(found["conv1.0.weight"], (first["conv1.0.weight"] + second["conv1.0.weight"]) / 2)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small language model, and LoRA adapters: a and b for it, c of another rank, d for another model."""
    folder = tmp_path_factory.mktemp("adapters")
    for name in ("base", "base2"):
        gpt2().save_pretrained(folder / name)
        byte_tokenizer(model_max_length=32).save_pretrained(folder / name)
    for name, base, rank in (("a", "base", 2), ("b", "base", 2), ("c", "base", 3), ("d", "base2", 2)):
        config = peft.LoraConfig(
            target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False, r=rank, task_type="CAUSAL_LM"
        )
        model = transformers.AutoModelForCausalLM.from_pretrained(folder / base)
        peft.get_peft_model(model, config).save_pretrained(folder / name)
    return folder


TEXT = ("--dataset", "docs", "--max_eval_samples", 10, "--max_train_samples", 40, "--block_size", 32)


def test_adapters_are_averaged_as_adapters(adapters: Path, tmp_path: Path) -> None:
    words = ("--model", adapters / "a", "--model", adapters / "b", *TEXT)
    out = tmp_path / "ab"
    assert merge(["--method", "average", "--coefficients", "0.25,0.75", *words, "--output_dir", out]) == 0
    first, second, found = (
        load_file(folder / "adapter_model.safetensors") for folder in (adapters / "a", adapters / "b", out)
    )
    assert found.keys() == first.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, first[name] / 4 + 3 * second[name] / 4)
    (code,), names = snippets(out), {}
    exec(code.replace("FOLDER", str(out)).replace("BASE", str(adapters / "base")), names)
    assert names["tokenizer"]("a")["input_ids"]
    results = read(out, "merge.json")
    assert str(tmp_path.parent) not in (out / "README.md").read_text() + (out / "merge.json").read_text()
    assert results["points"][-1]["perplexity"] > 1 and not (out / "model.safetensors").exists()
    assert merge(["--method", "barrier", *words, "--positions", 3, "--output_dir", tmp_path / "barrier"]) == 0
    (rows,) = read(tmp_path / "barrier", "merge.json")["curves"].values()
    assert [rows[0]["loss"], rows[-1]["loss"]] == [row["loss"] for row in results["points"][:2]]
    assert len({row["loss"] for row in rows}) == 3


@pytest.mark.parametrize("licences", [("mit", "mit"), ("mit", None)])
def test_the_card_of_merged_language_models_opens_them_and_says_nothing_false(tmp_path: Path, licences) -> None:
    words = [*TEXT, "--bptt", 9, "--method", "average", "--coefficients", "1,0", "--output_dir", tmp_path / "out"]
    for name, licence in zip("ab", licences, strict=True):
        config = WordTransformerConfig(vocab_size=257, d_model=8, nhead=2, d_hid=8, nlayers=1)
        WordTransformerForCausalLM(config).save_pretrained(tmp_path / name)
        byte_tokenizer().save_pretrained(tmp_path / name)
        if licence:
            (tmp_path / name / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
        words += ["--model", tmp_path / name]
    assert merge(words) == 0
    (code,), names = snippets(tmp_path / "out"), {}
    exec(code.replace("FOLDER", str(tmp_path / "out")), names)
    ids = names["tokenizer"]("a word", return_tensors="pt")["input_ids"]
    first = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a").eval()
    assert torch.equal(names["model"](ids).logits, first(ids).logits)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "It has no norm statistics to take anew." in card.text
    assert card.data.license == (licences[0] if licences[0] == licences[1] else None)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "c"), "differ in their configuration: r is 2 and 3"),
        (("a", "d"), "is an adapter of"),
        (("a", "base"), "'base' is no adapter"),
    ],
)
def test_adapters_that_do_not_fit_each_other_are_refused(
    adapters: Path, tmp_path: Path, capsys, names, message: str
) -> None:
    words = [word for name in names for word in ("--model", adapters / name)]
    with pytest.raises(SystemExit):
        merge(["--method", "average", *words, *TEXT, "--output_dir", tmp_path / "out"])
    assert message in capsys.readouterr().err.strip().splitlines()[-1] and not (tmp_path / "out").exists()
