"""The names work where hf_geo is never mentioned: in published scripts, in TRL, PEFT and sentence-transformers, in timm."""

import json
import pickle
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from transformers import Trainer

import hf_geo.launch
from hf_geo import GeoTrainingArguments
from hf_geo.integrations import register_timm, register_transformers
from hf_geo.integrations.transformers import _make_optimizer
from hf_geo.optim import Method, get_method, list_optimizers, param_groups, register_optimizer, registry
from hf_geo.training.methods import find_method
from tests.training.launching import launch_or_fail

SCRIPTS = Path(__file__).with_name("third_party")
TIMM_SCRIPT = SCRIPTS / "timm_script" / "train.py"
# ALI-G, which needs the loss, meets every script; every other method meets one or more.
PUBLISHED = [path.stem for path in sorted(SCRIPTS.glob("*.py"))]
MORE = [("causal_lm", "fromage"), ("sentence_embedding", "fromage"), ("image_classification", "adamsrt"), ("causal_lm", "adams"),
        ("image_classification", "sgdmrt"), ("image_classification", "sgdg"), ("sft_lora", "adamg"),
        ("image_classification", "timm:muon")]  # fmt: skip
SAVING = ("image_classification", "sentence_embedding")  # scripts that call save_model


def words(script: str, name: str, folder: Path, **more) -> list[str]:
    options = {
        "output_dir": folder, "optim": name, "num_train_epochs": 4, "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "use_cpu": True, "bf16": False,
        **more,
    }  # fmt: skip
    return [str(SCRIPTS / f"{script}.py"), *(f"--{key}={value}" for key, value in options.items())]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    jobs = {name: words(name, "alig", folder / name) for name in PUBLISHED}
    (folder / "jobs.json").write_text(json.dumps(jobs | {"timm": [str(TIMM_SCRIPT), "--opt", "alig"]}))
    launch_or_fail("-m", "tests.training.published", folder)
    return folder


def check_trained(script: str, name: str, folder: Path, out: str, err: str) -> None:
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    losses = [row["loss"] for row in log if "loss" in row]
    assert len(losses) == 12 and "eval_loss" in out
    assert sum(losses[-3:]) < sum(losses[:3])
    assert f"with {name} it becomes {find_method(name).lr}" in err
    if script in SAVING:
        saved = folder / "training_args.bin"
        assert b"OptimizerNames" not in saved.read_bytes(), "opens where transformers does not know the name"
        assert torch.load(saved, weights_only=False).optim == name


@pytest.mark.parametrize("script", PUBLISHED)
def test_an_unmodified_script_trains(published, script: str) -> None:
    err = (published / f"{script}.err").read_text()
    assert json.loads((published / "statuses.json").read_text())[script] == 0, err[-3000:]
    check_trained(script, "alig", published / script, (published / f"{script}.out").read_text(), err)


def test_timm_s_script_is_refused_what_needs_the_loss_before_it_trains(published) -> None:
    err = (published / "timm.err").read_text()
    assert json.loads((published / "statuses.json").read_text())["timm"] == 2
    assert not (published / "timm.out").read_text()
    assert "alig needs the value of the loss" in err and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(("script", "name"), MORE)
def test_an_unmodified_script_trains_with_other_methods(tmp_path, script: str, name: str) -> None:
    done = launch_or_fail("-m", "hf_geo.launch", *words(script, name, tmp_path))
    check_trained(script, name, tmp_path, done.stdout, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alig", "fromage"])
def test_sentence_transformers_resumes_and_writes_its_card(tmp_path, name: str) -> None:
    """The second half, from a checkpoint, ends with the weights of the unbroken run."""
    options = {"loss": "cosine", "save_strategy": "epoch"}
    launch_or_fail("-m", "hf_geo.launch", *words("sentence_embedding", name, tmp_path / "whole", **options))
    options["resume_from_checkpoint"] = tmp_path / "whole" / "checkpoint-6"
    launch_or_fail("-m", "hf_geo.launch", *words("sentence_embedding", name, tmp_path / "resumed", **options))
    whole, resumed = (tmp_path / folder / "model.safetensors" for folder in ("whole", "resumed"))
    assert whole.read_bytes() == resumed.read_bytes()
    card = (tmp_path / "whole" / "README.md").read_text()
    assert f"- `optim`: {name}" in card and f"- `learning_rate`: {get_method(name).lr}" in card


class TrainedTogether(nn.Module):
    """A loss that holds the network, as sentence-transformers hands it to the Trainer's choice of optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        self.classifier = nn.Linear(2, 2)


def groups_of(loss: TrainedTogether) -> list[dict]:
    return [{"params": [loss.network[0].weight, loss.classifier.weight], "weight_decay": 0.0},
            {"params": [loss.classifier.bias], "lr": 0.5, "weight_decay": 0.0}, {"params": []}]  # fmt: skip


@pytest.mark.parametrize("key", ["params", "model", "optimizer_dict"])
@pytest.mark.parametrize("name", ["fromage", "sgdg"])
def test_what_a_trainer_s_subclass_wants_trained_is_trained(tmp_path, key: str, name: str) -> None:
    args = GeoTrainingArguments(tmp_path, optim=name, learning_rate=0.25, use_cpu=True)
    loss = TrainedTogether()
    optimizer = _make_optimizer(args, loss, loss.network, **{key: groups_of(loss)})
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    first = 0.25 * get_method(name).geometry_lr
    assert rates == {loss.network[0].weight: first, loss.classifier.weight: 0.25, loss.classifier.bias: 0.5}
    flat = _make_optimizer(args, loss, loss.network, **{key: loss.classifier.parameters()})
    assert [len(group["params"]) for group in flat.param_groups] in ([2], [1, 1])


def test_settings_of_modules_are_used_or_refused_without_our_trainer(tmp_path, monkeypatch) -> None:
    args, loss = (
        GeoTrainingArguments(tmp_path, optim="alig", optim_args="classifier.lr=0.5", use_cpu=True),
        TrainedTogether(),
    )
    rates = {p: group["lr"] for group in _make_optimizer(args, None, loss).param_groups for p in group["params"]}
    assert {p for p, rate in rates.items() if rate == 0.5} == set(loss.classifier.parameters()) < set(rates)
    for name in ("training_step", "get_optimizer_cls_and_kwargs"):
        monkeypatch.setattr(Trainer, name, getattr(Trainer, name))  # restored afterwards
    monkeypatch.setattr("hf_geo.integrations.transformers._add_names", lambda: None)
    register_transformers()
    args.optim = "timm:lamb"
    with pytest.raises(ValueError, match="'classifier' apart, which timm:lamb takes from hf_geo"):
        Trainer.get_optimizer_cls_and_kwargs(args, loss)


def test_without_a_choice_all_that_was_named_is_trained(tmp_path) -> None:
    args, loss = GeoTrainingArguments(tmp_path, optim="alig", use_cpu=True), TrainedTogether()

    def trained(*models, **choice) -> set:
        return {p for group in _make_optimizer(args, *models, **choice).param_groups for p in group["params"]}

    assert trained(loss, loss.network) == set(loss.parameters())
    assert trained(None, loss.network) == set(loss.network.parameters())
    assert trained(None, loss.network, model=loss.classifier) == set(loss.classifier.parameters())


@pytest.mark.parametrize(
    ("arguments", "words"), [(["gone.py"], "no script 'gone.py'"), ([], "python -m hf_geo.launch script.py")]
)
def test_the_launcher_names_a_missing_script(arguments: list[str], words: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        hf_geo.launch.main(arguments)
    assert ended.value.code == 2 and words in "".join(capsys.readouterr())


@pytest.mark.parametrize("name", ["alig", "sgdg"])
def test_timm_s_registry_gives_a_class(name: str) -> None:
    register_timm()
    method = get_method(name)
    cls = timm.optim.get_optimizer_class(name, bind_defaults=False)
    assert isinstance(cls, type) and issubclass(cls, method.cls)
    optimizer = timm.optim.get_optimizer_class(name)([nn.Parameter(torch.ones(2, 3))], lr=0.5)
    assert type(optimizer) is type(pickle.loads(pickle.dumps(optimizer))) is method.cls
    assert {"lr": 0.5, **method.settings}.items() <= optimizer.param_groups[0].items()


@pytest.mark.parametrize("name", list_optimizers())
def test_timm_creates_every_method(name: str, caplog) -> None:
    register_timm()
    model = timm.create_model("test_resnet", num_classes=4)
    groups = {"param_group_fn": lambda model: param_groups(model, name)} if get_method(name).geometry else {}
    optimizer = timm.optim.create_optimizer_v2(model, name, lr=0.02, weight_decay=1e-4, **groups)
    assert type(optimizer) is get_method(name).cls
    decayed = "weight_decay" in get_method(name).arguments
    remedy = f"{get_method(name).instead_of_decay}=NUMBER to create_optimizer_v2, or --opt-kwargs"
    assert any("has no weight decay" in message and remedy in message for message in caplog.messages) is not decayed
    before = [p.detach().clone() for p in model.parameters()]
    loss = model(torch.randn(4, 3, 32, 32)).square().mean()
    loss.backward()
    optimizer.step(lambda: loss)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_timm_makes_a_third_party_s_method_that_has_no_paper(monkeypatch, caplog) -> None:
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    register_optimizer(Method("stepsigns", torch.optim.Rprop, None, lr=0.25))
    register_timm()
    optimizer = timm.optim.create_optimizer_v2(nn.Linear(3, 2), "stepsigns", weight_decay=0.1)
    assert type(optimizer) is torch.optim.Rprop and optimizer.param_groups[0]["lr"] == 0.25
    assert caplog.messages == ["stepsigns has no weight decay: 0.1 is ignored."]


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


@pytest.mark.slow
def test_timm_s_script_trains_and_has_the_remedy_that_is_named() -> None:
    done = launch_or_fail("-m", "hf_geo.launch", TIMM_SCRIPT, "--opt", "fromage", "--opt-kwargs", "p_bound=2.0")
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("epoch")]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert "2e-05 is ignored" in done.stderr and "--opt-kwargs p_bound=NUMBER" in done.stderr
