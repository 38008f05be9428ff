"""The names work where hf_geo is never mentioned: in published scripts, in TRL and PEFT, in timm."""

import json
from pathlib import Path

import pytest
import timm
import torch

from hf_geo.integrations import register_timm
from hf_geo.optim import get_method, list_optimizers, param_groups
from tests.training.launching import launch, launch_or_fail

SCRIPTS = Path(__file__).with_name("third_party")
# ALI-G, which needs the loss, meets every script; every other method meets one.
MORE = {"fromage": "causal_lm", "adamsrt": "image_classification", "adams": "causal_lm", "sgdmrt": "sequence_classification",
        "sgdg": "image_classification", "adamg": "sft_lora"}  # fmt: skip
RUNS = [(path.stem, "alig") for path in sorted(SCRIPTS.glob("*.py"))]
RUNS += [pytest.param(script, name, marks=pytest.mark.slow) for name, script in MORE.items()]


def words(script: str, name: str, folder: Path) -> list[str | Path]:
    options = {
        "output_dir": folder, "optim": name, "num_train_epochs": 4, "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True, "bf16": False,
    }  # fmt: skip
    return [SCRIPTS / f"{script}.py", *(f"--{key}={value}" for key, value in options.items())]


@pytest.mark.parametrize(("script", "name"), RUNS)
def test_an_unmodified_script_trains(tmp_path, script: str, name: str) -> None:
    done = launch_or_fail("-m", "hf_geo.launch", *words(script, name, tmp_path))
    losses = [
        row["loss"] for row in json.loads((tmp_path / "trainer_state.json").read_text())["log_history"] if "loss" in row
    ]
    assert len(losses) == 12 and "eval_loss" in done.stdout
    assert sum(losses[-3:]) < sum(losses[:3])
    assert f"with {name} it becomes {get_method(name).lr}" in done.stderr


def test_without_the_launcher_the_name_is_unknown(tmp_path) -> None:
    done = launch(*words("causal_lm", "fromage", tmp_path))
    assert done.returncode == 2 and "invalid choice: 'fromage'" in done.stderr


@pytest.mark.parametrize("arguments", [["gone.py"], []])
def test_the_launcher_names_a_missing_script(arguments: list[str]) -> None:
    done = launch("-m", "hf_geo.launch", *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "no script 'gone.py'" in done.stderr or "python -m hf_geo.launch script.py" in done.stdout


@pytest.mark.parametrize("name", list_optimizers())
def test_timm_creates_every_method(name: str, caplog) -> None:
    register_timm()
    model = timm.create_model("test_resnet", num_classes=4)
    groups = {"param_group_fn": lambda model: param_groups(model, name)} if get_method(name).geometry else {}
    optimizer = timm.optim.create_optimizer_v2(model, name, lr=0.02, weight_decay=1e-4, **groups)
    assert type(optimizer) is get_method(name).cls
    decayed = "weight_decay" in get_method(name).arguments
    assert any("has no weight decay" in message for message in caplog.messages) is not decayed
    before = [p.detach().clone() for p in model.parameters()]
    loss = model(torch.randn(4, 3, 32, 32)).square().mean()
    loss.backward()
    optimizer.step(lambda: loss)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_timms_parameters_are_one_group() -> None:
    register_timm()
    parameters = list(timm.create_model("test_resnet").parameters())
    given = [{"params": parameters, "weight_decay": 0.1}]
    for params in (parameters, iter(parameters), given):
        optimizer = timm.optim.create_optimizer_v2(params, "alig", lr=0.1)
        assert [len(group["params"]) for group in optimizer.param_groups] == [len(parameters)]
    assert given == [{"params": parameters, "weight_decay": 0.1}]


def test_timm_says_when_it_leaves_the_geometry_out(caplog) -> None:
    register_timm()
    timm.optim.create_optimizer_v2(timm.create_model("test_resnet"), "adamsrt", lr=1e-3)
    assert any("param_group_fn" in message for message in caplog.messages)
