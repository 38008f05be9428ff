"""`scripts/train.py` on real data: the folder it leaves, who can open it, and what it says about itself."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

from hf_geo.optim import list_optimizers
from tests.paths import REPOSITORY, SHARED
from tests.scripts import TRAIN
from tests.training.launching import launch, launch_or_fail

QUICK = ("--config", REPOSITORY / "configs" / "quickstart.yaml", "--model", "test_resnet", "--disable_tqdm", "true")
SCHEDULE = ("--max_steps=50", "--eval_strategy=steps", "--eval_steps=25", "--save_strategy=steps", "--save_steps=25")
FILES = {
    "README.md", "config.json", "model.safetensors", "train_results.json", "eval_results.json", "trainer_state.json",
    "training_args.json", "card.json", "figures/training.png",
}  # fmt: skip
OPEN = """
import json, sys, timm, torch
{first}
from transformers import AutoImageProcessor, AutoModelForImageClassification
folder = sys.argv[1]
theirs = AutoModelForImageClassification.from_pretrained(folder).eval()
model = timm.create_model("local-dir:" + folder, pretrained=True).eval()
torch.manual_seed(0)
images = torch.rand(4, 3, 32, 32)
with torch.no_grad():
    print(json.dumps([model(images).tolist(), theirs(images).logits.tolist(), "hf_geo" in sys.modules, theirs.config.id2label]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    launch_or_fail(TRAIN, *QUICK, *SCHEDULE, "--output_dir", folder, HF_TOKEN="hf_" + "secret" * 6)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    paths = (
        p for p in folder.rglob("*") if p.is_file() and not p.relative_to(folder).parts[0].startswith("checkpoint-")
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_folder_is_complete(run) -> None:
    assert set(files(run)) == FILES
    assert (run / "checkpoint-50" / "optimizer.pt").is_file()


def test_the_exported_weights_are_the_trained_ones(run) -> None:
    exported, trained = (load_file(folder / "model.safetensors") for folder in (run, run / "checkpoint-50"))
    trained = {name.removeprefix("timm_model."): tensor for name, tensor in trained.items()}
    assert set(exported) == set(trained) and all(torch.equal(exported[name], trained[name]) for name in exported)


def test_timm_and_transformers_open_it_without_hf_geo(run) -> None:
    done = launch_or_fail("-c", OPEN.format(first=""), run)
    ours, theirs, imported, labels = json.loads(done.stdout)
    assert ours == theirs and not imported
    assert labels == {str(i): str(i) for i in range(10)}


def test_the_results_are_measured(run) -> None:
    results = json.loads((run / "eval_results.json").read_text())
    assert 0.1 < results["test_accuracy"] <= 1.0 and results["test_loss"] > 0 and "eval_accuracy" in results
    state = json.loads((run / "trainer_state.json").read_text())
    assert state["global_step"] == 50 and [row["step"] for row in state["log_history"] if "eval_loss" in row][:2] == [
        25,
        50,
    ]


def test_the_card_is_valid_and_says_what_was_measured(run) -> None:
    card = ModelCard.load(run / "README.md")
    results = json.loads((run / "eval_results.json").read_text())
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert measured == {"accuracy": results["test_accuracy"], "loss": results["test_loss"]}
    assert card.data.license == "apache-2.0" and {"hf_geo", "fromage", "arxiv:2002.03432"} <= set(card.data.tags)
    for part in (
        "@inproceedings{bernstein2020distance",
        "local-dir:FOLDER",
        "figures/training.png",
        "`learning_rate` | `0.01`",
    ):
        assert part in card.content
    assert Image.open(run / "figures" / "training.png").size[0] > 600


def test_nothing_private_is_told(run) -> None:
    told = {name: content for name, content in files(run).items() if not name.endswith((".safetensors", ".png"))}
    for private in (str(run), str(run.parent), os.path.expanduser("~") + "/", "hf_secret", str(REPOSITORY)):
        assert [name for name, content in told.items() if private.encode() in content] == []


def test_a_resumed_run_ends_with_the_same_weights(run, tmp_path) -> None:
    """Order and augmentation of the images, statistics of the norm layers and the optimizer all go on as they were."""
    words = (*QUICK, *SCHEDULE, "--resume_from_checkpoint", run / "checkpoint-25", "--output_dir", tmp_path)
    launch_or_fail(TRAIN, *words)
    resumed, unbroken = (load_file(folder / "model.safetensors") for folder in (tmp_path, run))
    assert [name for name in unbroken if not torch.equal(resumed[name], unbroken[name])] == []


def test_a_checkpoint_of_another_optimizer_is_refused_in_a_sentence(run, tmp_path) -> None:
    words = (*QUICK, "--optim", "alig", "--resume_from_checkpoint", run / "checkpoint-25", "--output_dir", tmp_path)
    done = launch(TRAIN, *words)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert done.stderr.splitlines()[-1].startswith("train.py: error: The checkpoint was written by another optimizer")


def test_a_compiled_network_is_exported_as_itself(tmp_path) -> None:
    words = ("--max_steps", "1", "--eval_strategy", "no", "--save_strategy", "no", "--max_eval_samples", "32")
    launch_or_fail(
        TRAIN, *QUICK, *words, "--torch_compile", "true", "--torch_compile_backend", "eager", "--output_dir", tmp_path
    )
    ours, theirs, _, _ = json.loads(launch_or_fail("-c", OPEN.format(first=""), tmp_path).stdout)
    assert ours == theirs


def test_a_finished_run_is_not_overwritten(run) -> None:
    before = files(run)
    done = launch(TRAIN, *QUICK, "--output_dir", run)
    assert done.returncode == 2 and files(run) == before
    assert re.fullmatch(
        r"train.py: error: The output folder .* holds a finished run: .*--overwrite true.*\n", done.stderr
    )


def test_an_architecture_of_ours_opens_after_its_import(tmp_path) -> None:
    words = ("--model", "cifar_resnet20", "--dataset", SHARED / "hub/datasets/uoft-cs/cifar10", "--optim", "fromage")
    few = ("--max_train_samples", "64", "--max_eval_samples", "32", "--max_steps", "2", "--disable_tqdm", "true")
    launch_or_fail(TRAIN, *words, *few, "--output_dir", tmp_path / "run")
    ours, theirs, imported, labels = json.loads(
        launch_or_fail("-c", OPEN.format(first="import hf_geo.models"), tmp_path / "run").stdout
    )
    assert ours == theirs and imported and labels["9"] == "truck"
    card = (tmp_path / "run" / "README.md").read_text()
    assert "import hf_geo.models" in card and "on cifar10 with" in card


def test_two_processes_train_as_one(tmp_path) -> None:
    for processes in (1, 2):
        launch_or_fail(
            TRAIN, *QUICK, "--model", "test_vit", "--max_steps", "8", "--save_strategy", "no", "--eval_strategy", "no",
            "--per_device_train_batch_size", 16 // processes, "--output_dir", tmp_path / str(processes), processes=processes,
        )  # fmt: skip
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("1", "2"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)


def test_a_run_is_pushed_and_opens_by_its_id(hub, tmp_path) -> None:
    words = (
        TRAIN,
        *QUICK,
        "--max_steps",
        "2",
        "--output_dir",
        tmp_path / "run",
        "--push_to_hub",
        "true",
        "--hub_model_id",
        "ada/digits",
    )
    done = hub.run(words, token=hub.write_token)
    assert f"{hub.endpoint}/ada/digits" in done.stdout
    code = OPEN.format(first="").replace('"local-dir:" + folder', '"hf-hub:" + folder')
    ours, theirs, _, _ = json.loads(hub.run(["-c", code, "ada/digits"]).stdout)
    assert ours == theirs
    assert 'timm.create_model("hf-hub:ada/digits"' in (tmp_path / "run" / "README.md").read_text()


def test_a_push_that_fails_leaves_the_run_and_says_how_to_push_it(hub, tmp_path) -> None:
    words = (
        TRAIN,
        *QUICK,
        "--max_steps",
        "2",
        "--output_dir",
        tmp_path / "run",
        "--push_to_hub",
        "true",
        "--hub_model_id",
        "ada/digits",
    )
    done = hub.run(words, token=hub.read_token, check=False)
    assert done.returncode == 2 and set(files(tmp_path / "run")) >= FILES
    assert f"python scripts/push.py {tmp_path / 'run'} ada/digits" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", list_optimizers())
def test_every_method_learns_digits_with_its_defaults(tmp_path, name: str) -> None:
    words = (*QUICK, "--model", "resnet10t", "--num_train_epochs", "5", "--optim", name)
    launch_or_fail(TRAIN, *words, "--output_dir", tmp_path, timeout=600)
    assert json.loads((tmp_path / "eval_results.json").read_text())["test_accuracy"] >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("processes", (1, 2))
def test_cifar10(tmp_path, processes: int) -> None:
    launch_or_fail(
        TRAIN, "--model", "cifar_resnet20", "--dataset", SHARED / "hub/datasets/uoft-cs/cifar10", "--optim", "fromage",
        "--max_steps", "400", "--per_device_train_batch_size", 64 // processes, "--per_device_eval_batch_size", "250",
        "--save_strategy", "no", "--disable_tqdm", "true", "--output_dir", tmp_path, processes=processes, timeout=900,
    )  # fmt: skip
    assert json.loads((tmp_path / "eval_results.json").read_text())["test_accuracy"] > 0.4
