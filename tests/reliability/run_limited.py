"""Trains in two processes: undisturbed, then with files limited in the one and in the other while a checkpoint is saved, then
from the first checkpoint of such a run. Arguments: a folder and the mode."""

import functools
import sys
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import save_file

from tests.reliability.faults import Between, limit_files
from tests.training.problems import make_trainer


def train(folder: Path, mode: str, *callbacks, resume: str | None = None) -> dict:
    sharded = {}
    if mode != "ddp":
        kind = {"sharded": "SHARDED_STATE_DICT", "full": "FULL_STATE_DICT"}[mode.split()[1]]
        sharded = {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": kind}}
    every = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 4}
    trainer = make_trainer(folder, None, *callbacks, optim="fromage", use_cpu=True, **every, **sharded)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)


def main(folder: str, mode: str) -> None:
    run = Path(folder)
    states = {"unbroken": train(run / "unbroken", mode)}
    for rank in (0, 1):
        size = 1000 if dist.get_rank() == rank else -1
        limit = Between(4, functools.partial(limit_files, size), functools.partial(limit_files, -1))
        states[f"limited {rank}"] = train(run / f"limited {rank}", mode, limit)
    states["resumed"] = train(run / "resumed", mode, resume=str(run / "limited 1" / "checkpoint-2"))
    if dist.get_rank() == 0:
        for name, state in states.items():
            save_file({key: tensor.contiguous() for key, tensor in state.items()}, run / f"{name}.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
