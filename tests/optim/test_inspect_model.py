"""`scripts/inspect_model.py`: models of timm and transformers, as JSON, as a table, and users' mistakes."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import timm
import torch
import transformers

from hf_geo.optim import get_method, list_optimizers, measure_invariance, scale_invariant_parameters
from tests.paths import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "inspect_model.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("inspect_model", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def report(script, capsys: pytest.CaptureFixture):
    def run(*arguments: str) -> dict:
        assert script.main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def gpt2(folder: Path) -> Path:
    config = transformers.GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=24)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_json_says_what_the_probe_found(report):
    found = report("--model", "cifar_resnet20", "--weight_decay", "0.25")
    model = timm.create_model("cifar_resnet20")
    measured = scale_invariant_parameters(model, torch.randn(4, 3, 32, 32))
    rows = {row["name"]: row for row in found["parameters"]}
    assert {name: tuple(r["channel_dims"]) for name, r in rows.items() if r["channel_dims"] is not None} == measured
    assert {name: r["shape"] for name, r in rows.items()} == {n: list(p.shape) for n, p in model.named_parameters()}
    for name, row in rows.items():
        assert row["group"] == ("geometry" if name in measured else "rest" if len(row["shape"]) > 1 else "no_decay")
        assert row["weight_decay"] == (0.0 if row["group"] == "no_decay" else 0.25)
        assert bool(row["reason"]) == (name not in measured)
    total, invariant = found["totals"]["all"], found["totals"]["scale-invariant"]
    assert total["parameters"] == sum(p.numel() for p in model.parameters()) == 269722 + 2752
    assert (total["tensors"], invariant["tensors"]) == (len(rows), len(measured))
    weights = sum(model.get_parameter(name).numel() for name in measured)
    assert invariant["parameters"] == weights
    assert invariant["percent"] == pytest.approx(100 * weights / total["parameters"])


def test_groups_are_those_of_the_optimizer(script):
    model = timm.create_model("cifar_resnet20")
    rows = measure_invariance(model, torch.randn(4, 3, 32, 32), explain=True)
    for name in list_optimizers():
        found = script.make_report(model, rows, script.parse(["--model", "cifar_resnet20", "--optim", name]))
        method, groups = get_method(name), {row["group"] for row in found["parameters"]}
        has_decay = "weight_decay" in method.arguments
        assert groups == {"rest", *(["geometry"] if method.geometry else []), *(["no_decay"] if has_decay else [])}
        assert all((row["weight_decay"] is None) != has_decay for row in found["parameters"])


def test_geometry_groups(report):
    found = report("--model", "cifar_resnet20", "--geometry_groups", "fc")
    assert {row["name"] for row in found["parameters"] if row["group"] == "geometry"} == {"fc.weight"}
    assert found["totals"]["scale-invariant"]["tensors"] == 21


def test_language_model_folder(tmp_path: Path, report):
    found = report("--model", str(gpt2(tmp_path)))
    names = [row["name"] for row in found["parameters"]]
    assert "transformer.wte.weight" in names and "lm_head.weight" not in names  # tied: one entry
    assert found["totals"]["scale-invariant"]["tensors"] == 0


def test_model_type_of_transformers(report):
    small = "hidden_size=16,intermediate_size=24,num_hidden_layers=1,num_attention_heads=2,num_key_value_heads=2,head_dim=8,vocab_size=50"
    found = report("--model", "qwen3", "--model_args", small)
    chosen = {row["name"]: row["channel_dims"] for row in found["parameters"] if row["group"] == "geometry"}
    assert chosen == {f"model.layers.0.self_attn.{x}_proj.weight": [] for x in "qk"}


def test_image_model_folder_of_transformers(tmp_path: Path, report):
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    found = report("--model", str(tmp_path), "--img_size", "32")
    convolutions = [row for row in found["parameters"] if len(row["shape"]) == 4]
    assert all(row["channel_dims"] == [0] for row in convolutions)
    assert found["totals"]["scale-invariant"]["tensors"] == len(convolutions)


def test_folder_of_timm(tmp_path: Path, report):
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=7), tmp_path, safe_serialization=True)
    found = report("--model", str(tmp_path))
    assert {row["name"]: row["shape"][0] for row in found["parameters"]}["fc.weight"] == 7


def test_sizes_and_arguments(report):
    found = report("--model", "test_vit", "--img_size", "32", "--model_args", "depth=1,num_classes=3")
    shapes = {row["name"]: row["shape"] for row in found["parameters"]}
    assert (shapes["pos_embed"][1], shapes["head.weight"][0]) == (5, 3)
    assert not any("blocks.1." in name for name in shapes)


def test_table(script, capsys: pytest.CaptureFixture):
    assert script.main(["--model", "cifar_resnet20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith("parameter"))
    columns = [header.index(name) for name in ("parameter", "shape", "invariant", "why not", "group", "weight decay")]
    row = next(line for line in lines if line.startswith("conv1.weight"))
    cells = [row[a:b].strip() for a, b in zip(columns, [*columns[1:], None], strict=True)]
    assert cells == ["conv1.weight", "16 x 3 x 3 x 3", "by filter (axis 0)", "", "geometry", "0.0001"]
    assert any(line.startswith("scale-invariant: 21 tensors, 270,256 parameters (99.2 %)") for line in lines)


MISTAKES = {
    "unknown model": (["--model", "resnet81"], r"Unknown model 'resnet81'.*resnet18"),
    "unknown optimizer": (["--model", "cifar_resnet20", "--optim", "adamsr"], r"'adamsr'.*Did you mean 'adamsrt'"),
    "folder without a model": (["--model", "EMPTY"], r"holds no model"),
    "image size the model refuses": (
        ["--model", "test_vit", "--img_size", "161", "--model_args", "depth=1,strict_img_size=true"], r"161"),
    "argument timm does not take": (["--model", "cifar_resnet20", "--model_args", "dpeth=3"], r"dpeth"),
    "argument transformers does not take": (["--model", "gpt2", "--model_args", "n_emb=3"], r"no 'n_emb'"),
    "weight decay where there is none": (
        ["--model", "cifar_resnet20", "--optim", "fromage", "--weight_decay", "0.1"], r"no weight decay.*p_bound"),
    "too few samples": (["--model", "cifar_resnet20", "--batch_size", "2"], r"--batch_size.*at least 3, not '2'"),
    "no head it knows": (["--model", "wav2vec2"], r"no AutoModelForCausalLM of 'wav2vec2'.*measure_invariance"),
    "inputs it cannot make up": (["--model", "PERCEIVER"], r"takes inputs, which.*measure_invariance"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(mistake: str, script, tmp_path: Path, capsys: pytest.CaptureFixture):
    arguments, message = MISTAKES[mistake]
    (tmp_path / "empty").mkdir()
    widths = {"d_latents": 8, "d_model": 8, "qk_channels": 8, "v_channels": 8, "vocab_size": 10}
    perceiver = transformers.PerceiverConfig(num_self_attends_per_block=1, **widths)
    perceiver.architectures = ["PerceiverForMaskedLM"]
    perceiver.save_pretrained(tmp_path / "perceiver")
    folders = {"EMPTY": str(tmp_path / "empty"), "PERCEIVER": str(tmp_path / "perceiver")}
    with pytest.raises(SystemExit) as exit_:
        script.main([folders.get(argument, argument) for argument in arguments])
    assert exit_.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("inspect_model.py: error: ")
    assert re.search(message, error), error
