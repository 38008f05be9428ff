"""Files made to do harm: nothing of them is executed, and nothing is read or written outside of where it belongs."""

import json
import logging
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from hf_geo.checkpoints.store import seal
from hf_geo.cli.evaluating import OF_A_SUBSPACE
from hf_geo.data import build_word_tokenizer
from hf_geo.models.sources import find_model
from tests.evaluation.test_script import make_run
from tests.models.tiny import gpt2, resnet
from tests.scripts import script
from tests.wrong_calls import GOOD, MINE, Payload, edit_json, interrupted_run, own_code

EXECUTED = "executed"  # what a payload leaves behind


@pytest.fixture(scope="module")
def train():
    return script("train")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, train) -> Path:
    return interrupted_run(train, tmp_path_factory.mktemp("hostile") / "run")


def refusal(main, capfd, **options) -> str:
    """The one sentence that a script refuses options with."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([f"--{name}={value}" for name, value in {**GOOD["train"], **options}.items()])
    assert stop.value.code == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("train.py: error: ")
    assert not Path(EXECUTED).exists() and not Path("new").exists()
    return error


def zipped(path: Path) -> None:
    torch.save({"state": Payload()}, path)


def plain(path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload()))


def legacy(path: Path) -> None:
    torch.save({"state": Payload()}, path, _use_new_zipfile_serialization=False)


def test_the_payload_does_harm_where_it_may(tmp_path, monkeypatch) -> None:
    """Otherwise the tests below would show nothing."""
    monkeypatch.chdir(tmp_path)
    for write in (zipped, plain, legacy):
        write(tmp_path / "x.pt")
        loads = pickle.load if write is plain else lambda file: torch.load(file, weights_only=False)
        with open("x.pt", "rb") as file:
            loads(file)
        assert Path(EXECUTED).exists()
        Path(EXECUTED).unlink()


@pytest.mark.parametrize(
    ("name", "write", "manifest"),
    [
        ("optimizer.pt", zipped, True),
        ("optimizer.pt", plain, False),
        ("optimizer.pt", legacy, False),
        ("scheduler.pt", zipped, False),
        ("rng_state.pth", zipped, False),
        ("pytorch_model.bin", zipped, True),
    ],
)
def test_a_checkpoint_with_code(name, write, manifest, run, train, tmp_path, monkeypatch, capfd) -> None:
    """With a true manifest, or without one, as transformers writes it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "run")
    checkpoint = Path("run", "checkpoint-1")
    write(checkpoint / name)
    (checkpoint / "manifest.json").unlink()
    if manifest:
        seal(checkpoint)
    for resume, message in {"true": "no whole checkpoint", str(checkpoint): name}.items():
        assert message in refusal(train, capfd, output_dir="run", resume_from_checkpoint=resume, max_steps=2)


def pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    zipped(folder / "pytorch_model.bin")


def code_for_text(folder: Path) -> None:
    own_code(folder, architectures=["MineForCausalLM"])
    build_word_tokenizer(["some words"]).save_pretrained(folder)


def code_for_words(folder: Path) -> None:
    """A model that transformers knows, with a tokenizer of its own."""
    gpt2(vocab_size=9).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["mine.Config", None]}}))
    (folder / "mine.py").write_text(MINE)


def code_for_images(folder: Path) -> None:
    """A model that transformers knows, with an image processor of its own."""
    resnet(num_labels=10).save_pretrained(folder)
    described = {"auto_map": {"AutoImageProcessor": "mine.Config"}, "image_processor_type": "Mine"}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    (folder / "mine.py").write_text(MINE)


def shards_elsewhere(folder: Path) -> None:
    code_for_images(folder)
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": {"classifier.1.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


MODELS = {
    "weights pickled with code": (pickled_weights, "pytorch_model.bin' is no pickle of weights alone"),
    "a pickle under another name": (lambda folder: plain(folder / "model.safetensors"), "model.safetensors' is damaged"),
    "code for images": (own_code, "brings Python code of its own, which is not run"),
    "code for texts": (code_for_text, "brings Python code of its own, which is not run"),
    "code of a tokenizer": (code_for_words, "docs is empty"),  # transformers' own for such models, without any words
    "code of an image processor": (code_for_images, "brings Python code of its own, which is not run"),
    "an architecture of another folder": (edit_json("config.json", architecture="local-dir:../evil"), "'local-dir:../evil', which timm does not have"),
    "a checkpoint elsewhere": (edit_json("config.json", model_args={"checkpoint_path": "../evil.pth"}), "checkpoint_path='../evil.pth'"),
    "weights from the web": (edit_json("config.json", model_args={"pretrained_cfg_overlay": {"url": "http://evil"}}), "pretrained_cfg_overlay="),
    "a cache elsewhere": (edit_json("config.json", model_args={"cache_dir": "../evil"}), "cache_dir='../evil'"),
    "shards elsewhere": (shards_elsewhere, "leads to '../elsewhere.safetensors', out of its folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_folder(name: str, train, tmp_path, monkeypatch, capfd) -> None:
    spoil, message = MODELS[name]
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "model")
    spoil(tmp_path / "model")
    zipped(tmp_path / "evil.pth")
    texts = {"dataset": "docs", "task": "causal-lm"} if spoil in (code_for_text, code_for_words) else {}
    assert message in refusal(train, capfd, model="model", **texts)
    assert not list(tmp_path.rglob("evil")) and not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize("name", ("train", "evaluate", "inspect_model"))
def test_code_runs_only_with_its_flag_and_loudly(name: str, tmp_path, monkeypatch, capfd, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    make_run(tmp_path / "model")
    own_code(tmp_path / "model")
    given = {key: value for key, value in GOOD[name].items() if key not in OF_A_SUBSPACE}
    words = [f"--{key}={value}" for key, value in {**given, "model": "model"}.items()]
    with pytest.raises(SystemExit):
        script(name)(words)
    assert not Path(EXECUTED).exists() and "give --trust_remote_code true" in capfd.readouterr().err
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit):
        script(name)([*words, "--trust_remote_code=true"])
    assert Path(EXECUTED).exists()
    assert "Python code that 'model' brings along is run, with all that you may do on this machine." in caplog.text


def test_a_config_that_breaks_parsers(tmp_path) -> None:
    odd = ('{"architecture": ["x"]}', '{"model_args": 3}', '{"architectures": [null]}', '{"id2label": {"a": "b"}}',
           '{"label_names": 5}', '{"num_labels": [1]}')  # fmt: skip
    for content in ("[" * 100_000, '{"a": ' * 100_000, "\x00" * 100, *odd):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=r"config.json' (is not JSON|does not describe|is of the architecture)"):
            find_model(str(tmp_path))
