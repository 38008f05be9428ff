"""Trainings with averaged weights and on a line, unbroken and resumed from checkpoints."""

from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import TrainerState

from hf_geo import GeoTrainingArguments, SubspaceConfig
from hf_geo.training.averaging import WeightAverage
from tests.training.problems import make_problem, make_trainer

# The processes draw the line's positions alike, so that two of them do what one does.
LINE = SubspaceConfig("line", jitter=0.5, shared_draws=True)
UPDATES = 12  # five an epoch
# Settings, and the updates it is resumed from: of SWA before its first average and at it, of others also before the last.
RUNS = {"ema": ({"ema_decay": 0.8}, (4, 11)), "swa": ({"swa_start": 0.3, "swa_lr": 0.02}, (4, 5)), "line": ({}, (4,))}


def train(name: str, folder: Path, checkpoint: Path | None = None) -> dict[str, torch.Tensor]:
    trainer = make_trainer(
        folder, subspace=LINE if name == "line" else None, optim="sgd", learning_rate=0.1, max_steps=UPDATES,
        per_device_train_batch_size=8 // Accelerator().num_processes, lr_scheduler_type="linear", save_strategy="steps",
        save_steps=1 if checkpoint is None else UPDATES, **RUNS[name][0],
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    trainer.finalize()
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)


def by_hand(shard: bool, folder: Path) -> dict[str, torch.Tensor]:
    """An average of weights that move the same way whether or not they are sharded, saved and loaded on the way."""
    model, _ = make_problem("points")
    if shard:
        fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (torch.distributed.get_world_size(),)))
    args = GeoTrainingArguments(output_dir=str(folder), ema_decay=0.8)
    average = WeightAverage(args)
    for step in range(4):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5 + step).add_(step)
        average.on_step_end(args, TrainerState(global_step=step + 1), None, model=model)
        if step == 2:
            average.save(folder, write=torch.distributed.get_rank() == 0)
            torch.distributed.barrier()
            average = WeightAverage(args)
            average.load(folder, model)
    average.finalize(model, [])
    weights = dict(model.named_parameters())
    if [isinstance(p, DTensor) for p in weights.values()] != [shard] * len(weights):
        raise RuntimeError("The parameters are not sharded as they were to be.")
    return {name: (p.full_tensor() if shard else p).detach().contiguous() for name, p in weights.items()}


def run(folder: Path) -> None:
    found = {}
    for name, (_, stops) in RUNS.items():
        whole = folder / name
        ends = {"unbroken": train(name, whole)}
        for step in stops:
            ends[step] = train(name, whole.with_suffix(".resumed"), whole / f"checkpoint-{step}")
        for end, weights in ends.items():
            found |= {f"{name}/{end}/{key}": tensor.contiguous() for key, tensor in weights.items()}
    if Accelerator().num_processes > 1:
        for shard in (True, False):
            found |= {f"by hand/{shard}/{name}": t for name, t in by_hand(shard, folder / f"shard-{shard}").items()}
    if Accelerator().is_main_process:
        save_file(found, folder / "averages.safetensors")
