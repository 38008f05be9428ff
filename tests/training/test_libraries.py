"""Optimizers of timm and torch by `--optim timm:NAME` and `torch:NAME`."""

import gc
import json

import pytest
import timm
import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn
from transformers import PreTrainedConfig

from hf_geo import GeoTrainer, GeoTrainingArguments
from hf_geo.training.methods import find_method, library_names
from hf_geo.training.optimizers import optimizer_class
from tests.training.launching import launch_or_fail
from tests.training.problems import flat

IMAGES, LABELS = load_digits(return_X_y=True)
DIGITS = [
    {"pixel_values": torch.tensor(image, dtype=torch.float32).view(1, 8, 8) / 16, "labels": int(label)}
    for image, label in zip(IMAGES[:640], LABELS, strict=False)
]


@pytest.fixture(autouse=True, scope="module")
def collections_of_few_objects():
    """The Trainer collects garbage as training begins, among all objects of the libraries, which takes longer than training."""
    gc.freeze()
    yield
    gc.unfreeze()


class Network(nn.Module):
    """A convolution before a batch normalization, another one, and a head; or a perceptron of matrices alone."""

    def __init__(self, matrices: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = PreTrainedConfig()
        if matrices:
            layers = [nn.Flatten(), nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, 10, bias=False)]
        else:
            stem, inner = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2)
            layers = [stem, nn.BatchNorm2d(4), nn.ReLU(), inner, nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)]
        self.layers = nn.Sequential(*layers)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.layers(pixel_values)
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return {**loss, "logits": logits}


def make(folder, model: nn.Module, **settings) -> GeoTrainer:
    defaults = {"max_steps": 20, "save_steps": 10, "logging_steps": 5, "warmup_steps": 2, "disable_tqdm": True}
    defaults["per_device_train_batch_size"] = 32
    args = GeoTrainingArguments(str(folder), **(defaults | settings))
    return GeoTrainer(model, args, train_dataset=DIGITS)


def check_run(folder, name: str, **settings) -> GeoTrainer:
    """Trains for 20 updates, and again from the tenth on, to the same weights."""
    trainer = make(folder, Network(settings.pop("matrices", False)), optim=name, **settings)
    start = flat(trainer.model)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert all(0 < loss < 50 for loss in losses) and not torch.equal(flat(trainer.model), start), losses
    again = make(folder / "again", Network(len(list(trainer.model.parameters())) == 2), optim=name, **settings)
    again.train(resume_from_checkpoint=str(folder / "checkpoint-10"))
    assert torch.equal(flat(again.model), flat(trainer.model)), "a resumed run ends elsewhere"
    return trainer


def test_muon_trains_and_resumes(tmp_path) -> None:
    trainer = check_run(tmp_path, "timm:muon", optim_args="layers.6.use_fallback=true,ns_coefficients=original")
    optimizer = trainer.optimizer.optimizer
    by_muon = {name for name, p in trainer.model.named_parameters() if optimizer.state[p]["use_muon"]}
    assert by_muon == {"layers.3.weight"}  # one channel goes into the first convolution: that is no matrix
    assert {group["ns_coefficients"] for group in optimizer.param_groups} == {"original"}
    assert optimizer.defaults["momentum"] == 0.95 and trainer.args.to_dict()["optim"] == "timm:muon"


def test_timms_muon_equals_torchs_on_matrices(tmp_path) -> None:
    settings = {"learning_rate": 0.01, "weight_decay": 0.1, "max_steps": 5, "save_strategy": "no"}
    alike = "nesterov=true,adjust_lr_fn=original,ns_coefficients=original"
    runs = [
        make(tmp_path, Network(matrices=True), optim=name, optim_args=given, **settings)
        for name, given in (("timm:muon", alike), ("torch:Muon", None))
    ]
    start = flat(runs[0].model)
    for run in runs:
        run.train()
    torch.testing.assert_close(flat(runs[0].model), flat(runs[1].model), rtol=1e-4, atol=1e-6)
    assert (flat(runs[0].model) - start).abs().max() > 0.01


@pytest.mark.slow
def test_muon_takes_the_interior_convolutions_of_resnet_18(tmp_path) -> None:
    model = timm.create_model("resnet18")
    optimizer = make(tmp_path, model, optim="timm:muon", optim_args="ns_steps=1").create_optimizer()
    for p in model.parameters():
        p.grad = p.detach().clone()
    optimizer.step()
    found = {name: optimizer.state[p]["use_muon"] for name, p in model.named_parameters()}
    interior = {name for name, p in model.named_parameters() if name.startswith("layer") and p.ndim == 4}
    assert len(interior) == 19 and all(found[name] for name in interior)
    assert not any(found[name] for name, p in model.named_parameters() if p.ndim == 1)


def test_schedule_free_weights_are_saved_as_they_are_evaluated(tmp_path) -> None:
    settings = {"lr_scheduler_type": "constant", "learning_rate": 0.1, "warmup_steps": 0}
    trainer = check_run(tmp_path, "schedule_free_sgd", **settings)
    optimizer = trainer.optimizer.optimizer
    assert not optimizer.param_groups[0]["train_mode"] and optimizer.param_groups[0]["k"] == 20
    saved = load_file(tmp_path / "checkpoint-20" / "model.safetensors")
    for name, p in trainer.model.named_parameters():
        assert torch.equal(saved[name], p) and not torch.equal(p, optimizer.state[p]["z"])
    optimizer.train()
    assert not torch.allclose(saved["layers.0.weight"], trainer.model.layers[0].weight)
    trainer._save_checkpoint(trainer.model, trial=None)  # as on a signal, from within training
    torch.testing.assert_close(load_file(tmp_path / "checkpoint-20" / "model.safetensors"), saved)


REFUSED = {
    "timm:adahessian": "needs second derivatives",
    "timm:bnbadam": r"needs a CUDA GPU and the package bitsandbytes \(pip install bitsandbytes\)",
    "timm:fusedlamb": "needs a CUDA GPU and the package apex",
    "timm:adafactor": "has no learning rate of its own: give --learning_rate",
    "timm:moun": r"no optimizer 'timm:moun'. The nearest are timm:muon",
    "torch:LBFGS": "evaluates the loss several times within a step",
    "torch:SparseAdam": "takes sparse gradients alone",
    "torch:adamw": "torch has no optimizer 'torch:adamw'. The nearest are torch:AdamW",
    "jax:adam": "before the colon comes timm or torch",
    "moun": "Unknown optimizer 'moun'. Did you mean 'timm:muon'",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str) -> None:
    if torch.cuda.is_available() and "CUDA" in REFUSED[name]:
        pytest.skip("this machine has a GPU")
    with pytest.raises((ValueError, ImportError), match=REFUSED[name]):
        GeoTrainingArguments("unused", optim=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optim": "torch:Muon"}, "updates matrices alone, and this model has 7 .* such as .4, 1, 3, 3.: choose timm:muon"),
        ({"optim": "torch:Rprop", "weight_decay": 0.1}, "torch:Rprop has no weight decay"),
        ({"optim": "timm:lars", "optim_args": "rest.trust_coeff=1"}, "makes no other groups"),
        ({"optim": "timm:muon", "optim_args": "use_fallback=true"}, "as MODULE.use_fallback=true"),
        ({"optim": "timm:adamw", "optim_args": "betas=auto"}, "betas=auto: cannot read 'auto'"),
        ({"optim": "timm:adamw", "adam_beta1": 0.5}, "give --optim_args betas=0.5:0.999"),
        ({"optim": "timm:adamw", "adam_epsilon": 0.5}, "give --optim_args eps=0.5"),
        ({"optim": "fromage", "adam_beta2": 0.5}, "not fromage: leave it out"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_refused(tmp_path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path, Network(), **settings).create_optimizer()


def test_settings_of_a_module_are_read_as_those_of_all(tmp_path) -> None:
    words = make(
        tmp_path, Network(matrices=True), optim="torch:Muon", optim_args="layers.1.adjust_lr_fn=match_rms_adamw"
    )
    groups = {group["name"]: group for group in words.create_optimizer().param_groups}
    assert [group["adjust_lr_fn"] for group in groups.values()] == [None, "match_rms_adamw"]
    corrected = {"optim": "timm:adamc", "learning_rate": 0.1, "optim_args": "layers.6.lr=0.02"}
    rates = [
        (g["lr"], g["max_lr_snapshot"]) for g in make(tmp_path, Network(), **corrected).create_optimizer().param_groups
    ]
    assert set(rates) == {(0.1, 0.1), (0.02, 0.02)}


@pytest.mark.parametrize(
    ("module", "decay_all", "decayed"),
    [
        ("layers", False, {"layers.0.weight", "layers.3.weight", "layers.6.weight"}),
        ("layers.3", False, {"layers.3.weight"}),
        ("layers.1", False, {"layers.1.weight", "layers.1.bias"}),  # which is a norm layer
        ("layers.3", True, {"layers.3.weight", "layers.3.bias"}),
    ],
)
@pytest.mark.parametrize("name", ["adamsrt", "torch:SGD"])
def test_weight_decay_of_a_module_spares_its_norms_and_biases(tmp_path, name, module, decay_all, decayed) -> None:
    trainer = make(
        tmp_path, Network(), optim=name, optim_args=f"{module}.weight_decay=0.1,{module}.lr=0.5", decay_all=decay_all
    )
    groups = {p: group for group in trainer.create_optimizer().param_groups for p in group["params"]}
    found = {parameter: groups[p] for parameter, p in trainer.model.named_parameters()}
    assert {parameter for parameter, group in found.items() if group["weight_decay"] == 0.1} == decayed
    ours = {p for p in found if p.startswith(f"{module}.")}
    assert {p for p, group in found.items() if group.get("name", "").startswith(f"{module}.")} == ours


NEEDS_RATE = {"timm:adafactor", "timm:cadafactor", "timm:sgdp", "timm:csgdp"}


@pytest.mark.slow
@pytest.mark.parametrize("name", library_names())
def test_every_name_trains_and_resumes_or_is_refused(tmp_path, name: str) -> None:
    try:
        find_method(name)
    except (ValueError, ImportError) as error:
        assert name in str(error)
        return
    rate = {"learning_rate": 0.01} if name in NEEDS_RATE else {}
    with torch.compiler.set_stance("force_eager"):  # timm's Kron compiles, which takes minutes
        check_run(tmp_path, name, **rate, matrices=name == "torch:Muon")


@pytest.mark.slow
def test_what_takes_shards_is_right_on_them(tmp_path) -> None:
    launch_or_fail("-m", "tests.training.sharded_libraries", tmp_path / "errors.json", processes=2)
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert len(errors) > 25 and max(errors.values()) < 1e-4, errors


def test_what_takes_no_shards_is_refused_them(tmp_path, monkeypatch) -> None:
    trainer = make(tmp_path, Network(), optim="timm:muon")
    monkeypatch.setitem(PartialState._shared_state, "distributed_type", DistributedType.FSDP)
    monkeypatch.setitem(AcceleratorState._shared_state, "fsdp_plugin", FullyShardedDataParallelPlugin(fsdp_version=2))
    for name in ("timm:muon", "timm:cadamw", "torch:Rprop"):
        trainer.args.optim = name
        with pytest.raises(ValueError, match=f"{name} does not work on sharded weights"):
            optimizer_class(trainer.args, trainer.model)
    trainer.args.optim = "timm:lamb"
    assert optimizer_class(trainer.args, trainer.model)[0] is timm.optim.Lamb
