"""Networks with and without unused parameters, trained by processes that end before the interpreter."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import save_file
from torch import nn

from hf_geo.subspaces import SubspaceConfig
from hf_geo.training.processes import UnusedParametersError, end_process_groups
from tests.training.problems import Classifier, Normalized, flat, make_problem, make_trainer


class WithHead(Classifier):
    """A classifier with a second head, which its loss does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 2)


class Skipping(Classifier):
    """A classifier that skips a layer at random."""

    def __init__(self) -> None:
        super().__init__()
        self.residual = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        return super().forward(x + self.residual(x) if torch.rand(()) < 0.5 else x, labels)


class Shy(Classifier):
    """A classifier that fails when it is run for the first time, if that is before DDP runs it."""

    runs = itertools.count()

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        if dist.is_initialized() and next(self.runs) == 0:
            raise RuntimeError("not yet")
        return super().forward(x, labels)


def with_frozen_head() -> nn.Module:
    model = WithHead()
    model.head.requires_grad_(False)
    return model


def with_unused_norm() -> nn.Module:
    model = Normalized()
    model.unused = nn.BatchNorm1d(6).double()
    return model


@dataclass
class Row:
    """A model, how it is trained, and whether DDP should look for unused parameters.

    Args:
        model: Makes it.
        searches: What is expected.
        settings: Arguments of `make_trainer`.
    """

    model: Callable[[], nn.Module]
    searches: bool
    settings: dict = field(default_factory=dict)


LANGUAGE = {"data": make_problem("sentences")[1]}
ROWS = {
    "all used": Row(Classifier, False),
    "batch norms": Row(Normalized, False, {"optim": "adamsrt"}),
    "accumulation": Row(Classifier, False, {"gradient_accumulation_steps": 2}),
    "line": Row(Normalized, False, {"subspace": SubspaceConfig(kind="line", num_samples=2)}),
    "language": Row(lambda: make_problem("sentences")[0], False, LANGUAGE),
    "checkpointing": Row(
        lambda: make_problem("sentences")[0],
        False,
        LANGUAGE | {"gradient_checkpointing": True, "gradient_accumulation_steps": 2},
    ),
    "asked for": Row(Classifier, True, {"ddp_find_unused_parameters": True}),
    "unused head": Row(WithHead, True),
    "frozen head": Row(with_frozen_head, False),
    "skipped at random": Row(Skipping, True),
    "cannot be tried": Row(Shy, True),
    "not looked for": Row(WithHead, False, {"ddp_find_unused_parameters": False}),
}


def train(row: Row, folder: Path) -> tuple[bool, str | None, torch.Tensor]:
    """Trains; returns whether DDP looked for unused parameters, the error, and the weights."""
    torch.manual_seed(0)
    settings = {"optim": "sgd", "learning_rate": 0.1, "logging_strategy": "no", **row.settings}
    trainer = make_trainer(
        folder,
        row.model().double(),
        per_device_train_batch_size=8 // Accelerator().num_processes,
        **settings,
    )
    error = None
    try:
        trainer.train()
    except UnusedParametersError as caught:
        error = str(caught)
    return getattr(trainer.model_wrapped, "find_unused_parameters", False), error, flat(trainer.model)


def gloo_threads() -> int:
    return sum("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))


def run(folder: Path) -> None:
    state = Accelerator()
    found = {name: train(row, folder / "searches") for name, row in ROWS.items()}
    if state.is_main_process:
        save_file({name: weights for name, (_, _, weights) in found.items()}, folder / "searches.safetensors")
    if state.num_processes == 1:
        return
    same = gather_object([[weights.tolist() for _, error, weights in found.values() if error is None]])
    results = {
        "rows": {name: (searched, error) for name, (searched, error, _) in found.items()},
        "same weights": same[0] == same[1],
    }
    # A script that keeps its Trainer and a wrapped model, as the last one's traceback does.
    kept = make_trainer(folder / "searches", Normalized(), optim="sgd", logging_strategy="no")
    kept.train()
    wrapped = kept.model_wrapped
    before = gloo_threads()
    end_process_groups()
    results["threads"] = (before, gloo_threads())
    del wrapped
    if state.is_main_process:
        (folder / "searches.json").write_text(json.dumps(results))
