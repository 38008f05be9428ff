"""`scripts/train.py` on real data: the folder it leaves, who can open it, and what it says about itself."""

import json
import os
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from hf_geo.optim import list_optimizers
from tests.paths import REPOSITORY, SHARED
from tests.scripts import TRAIN, script
from tests.training.launching import launch_or_fail

CIFAR10 = SHARED / "hub/datasets/uoft-cs/cifar10"
QUICK = ("--config", REPOSITORY / "configs" / "quickstart.yaml", "--model", "test_resnet", "--disable_tqdm", "true")
SCHEDULE = ("--max_steps=50", "--eval_strategy=steps", "--eval_steps=25", "--save_strategy=steps", "--save_steps=25")
FEW = ("--max_steps=2", "--eval_strategy=no", "--save_strategy=no", "--max_eval_samples=32")
FILES = {
    "README.md", "config.json", "model.safetensors", "train_results.json", "eval_results.json", "trainer_state.json",
    "training_args.json", "card.json", "figures/training.png",
}  # fmt: skip
# The folders from the third on are of an architecture of ours, which opens after its import.
OPEN = """
import json, sys, timm, torch
from transformers import AutoImageProcessor, AutoModelForImageClassification
found = []
for i, folder in enumerate(sys.argv[1:]):
    if i == 2:
        import hf_geo.models
    theirs = AutoModelForImageClassification.from_pretrained(folder).eval()
    model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        same = torch.equal(model(images), theirs(images).logits)
    found.append([same, "hf_geo" in sys.modules, theirs.config.id2label])
print(json.dumps(found))
"""


def train(*words: str | Path, folder: Path) -> Path:
    assert script("train")([*words, "--output_dir", folder]) == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    launch_or_fail(TRAIN, *QUICK, *SCHEDULE, "--output_dir", folder, HF_TOKEN="hf_" + "secret" * 6)
    return folder


@pytest.fixture(scope="module")
def cifar_run(tmp_path_factory) -> Path:
    words = ("--model", "cifar_resnet20", "--dataset", CIFAR10, "--optim", "fromage", "--max_train_samples", "64")
    return train(*words, *FEW, "--disable_tqdm=true", folder=tmp_path_factory.mktemp("cifar") / "run")


def files(folder: Path) -> dict[str, bytes]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {p.as_posix(): (folder / p).read_bytes() for p in paths if not p.parts[0].startswith("checkpoint-")}


def test_the_folder_is_complete(run) -> None:
    assert set(files(run)) == FILES
    assert (run / "checkpoint-50" / "optimizer.pt").is_file()


def test_the_exported_weights_are_the_trained_ones(run) -> None:
    exported, trained = (load_file(folder / "model.safetensors") for folder in (run, run / "checkpoint-50"))
    trained = {name.removeprefix("timm_model."): tensor for name, tensor in trained.items()}
    assert set(exported) == set(trained) and all(torch.equal(exported[name], trained[name]) for name in exported)


def test_timm_and_transformers_open_it_without_hf_geo(run, cifar_run, tmp_path) -> None:
    """Also a network that was compiled; an architecture of ours after its import."""
    compile_it = ("--torch_compile=true", "--torch_compile_backend=eager")
    compiled = train(*QUICK, *FEW, *compile_it, folder=tmp_path / "compiled")
    digits, same, ours = json.loads(launch_or_fail("-c", OPEN, run, compiled, cifar_run).stdout)
    assert digits == [True, False, {str(i): str(i) for i in range(10)}]
    assert same[:2] == [True, False]
    assert ours[:2] == [True, True] and ours[2]["9"] == "truck"
    card = (cifar_run / "README.md").read_text()
    assert "import hf_geo.models" in card and "on cifar10 with" in card


def test_the_results_are_measured(run) -> None:
    results = json.loads((run / "eval_results.json").read_text())
    assert 0.1 < results["test_accuracy"] <= 1.0 and results["test_loss"] > 0 and "eval_accuracy" in results
    state = json.loads((run / "trainer_state.json").read_text())
    assert state["global_step"] == 50
    assert [row["step"] for row in state["log_history"] if "eval_loss" in row][:2] == [25, 50]


def test_the_card_is_valid_and_says_what_was_measured(run) -> None:
    card = ModelCard.load(run / "README.md")
    results = json.loads((run / "eval_results.json").read_text())
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert measured == {"accuracy": results["test_accuracy"], "loss": results["test_loss"]}
    assert card.data.license == "apache-2.0" and {"hf_geo", "fromage", "arxiv:2002.03432"} <= set(card.data.tags)
    parts = ("@inproceedings{bernstein2020distance", "local-dir:FOLDER", "training.png", "`learning_rate` | `0.01`")
    assert [part for part in parts if part not in card.content] == []
    assert Image.open(run / "figures" / "training.png").size[0] > 600


def test_nothing_private_is_told(run) -> None:
    told = {name: content for name, content in files(run).items() if not name.endswith((".safetensors", ".png"))}
    for private in (str(run), str(run.parent), os.path.expanduser("~") + "/", "hf_secret", str(REPOSITORY)):
        assert [name for name, content in told.items() if private.encode() in content] == []


def test_a_resumed_run_ends_with_the_same_weights(run, tmp_path) -> None:
    """Order and augmentation of the images, statistics of the norm layers and the optimizer all go on as they were."""
    train(*QUICK, *SCHEDULE, "--resume_from_checkpoint", run / "checkpoint-25", folder=tmp_path)
    resumed, unbroken = (load_file(folder / "model.safetensors") for folder in (tmp_path, run))
    assert [name for name in unbroken if not torch.equal(resumed[name], unbroken[name])] == []


REFUSED = [
    (("--optim=alig",), "The checkpoint was written by another optimizer"),
    (("--train_split=train+test",), "The checkpoint's run had --train_split"),
]


@pytest.mark.parametrize(("words", "sentence"), REFUSED)
def test_a_checkpoint_of_another_run_is_refused(run, tmp_path, capfd, words, sentence: str) -> None:
    with pytest.raises(SystemExit) as stop:
        train(*QUICK, *words, "--resume_from_checkpoint", run / "checkpoint-25", folder=tmp_path)
    assert stop.value.code == 2 and not list(tmp_path.iterdir())
    assert capfd.readouterr().err.splitlines()[-1].startswith(f"train.py: error: {sentence}")


def test_a_finished_run_is_not_overwritten(run, capfd) -> None:
    before = files(run)
    with pytest.raises(SystemExit) as stop:
        train(*QUICK, folder=run)
    sentence = capfd.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and files(run) == before
    assert sentence.startswith("train.py: error: The output folder ") and "--overwrite true" in sentence


def test_two_processes_train_as_one(tmp_path) -> None:
    words = (*QUICK, "--model", "test_vit", "--max_steps=8", "--save_strategy=no", "--eval_strategy=no")
    one = train(*words, "--per_device_train_batch_size=16", folder=tmp_path / "1")
    words += ("--per_device_train_batch_size=8", "--output_dir", str(tmp_path / "2"))
    done = launch_or_fail(TRAIN, *words, processes=2)
    assert "find_unused_parameters" not in done.stderr  # DDP looks for none, and has nothing to warn of
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("1", "2"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)


def test_a_run_is_pushed_and_opens_by_its_id(online, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("HF_TOKEN", online.write_token)
    run = train(*QUICK, *FEW, "--push_to_hub=true", "--hub_model_id=ada/digits", folder=tmp_path / "run")
    assert f"{online.endpoint}/ada/digits" in capfd.readouterr().out
    images, exported = torch.rand(4, 3, 32, 32), load_file(run / "model.safetensors")
    model = timm.create_model("hf-hub:ada/digits", pretrained=True).eval()
    theirs = AutoModelForImageClassification.from_pretrained("ada/digits").eval()
    assert all(torch.equal(tensor, exported[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(model(images), theirs(images).logits)
    assert 'timm.create_model("hf-hub:ada/digits"' in (run / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", list_optimizers())
def test_every_method_learns_digits_with_its_defaults(tmp_path, name: str) -> None:
    words = (*QUICK, "--model", "resnet10t", "--num_train_epochs", "5", "--optim", name)
    launch_or_fail(TRAIN, *words, "--output_dir", tmp_path, timeout=600)
    assert json.loads((tmp_path / "eval_results.json").read_text())["test_accuracy"] >= 0.95


@pytest.mark.slow
def test_cifar10(tmp_path) -> None:
    launch_or_fail(
        TRAIN, "--model", "cifar_resnet20", "--dataset", CIFAR10, "--optim", "fromage", "--max_steps", "400",
        "--per_device_train_batch_size", "32", "--per_device_eval_batch_size", "250", "--max_eval_samples", "1000",
        "--save_strategy", "no", "--disable_tqdm", "true", "--output_dir", tmp_path, processes=2, timeout=900,
    )  # fmt: skip
    assert json.loads((tmp_path / "eval_results.json").read_text())["test_accuracy"] > 0.4
