"""Trains in two processes, undisturbed and with files limited in one of them while a checkpoint is saved, and resumes the
latter's first checkpoint. Arguments: a folder, the mode, the process."""

import sys
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import save_file

from hf_geo import GeoTrainer, GeoTrainingArguments
from tests.reliability.faults import Between, limit_files
from tests.training.problems import make_problem


def train(folder: Path, mode: str, *callbacks, resume: str | None = None) -> dict:
    model, data = make_problem("points")
    sharded = {}
    if mode != "ddp":
        kind = {"sharded": "SHARDED_STATE_DICT", "full": "FULL_STATE_DICT"}[mode.split()[1]]
        sharded = {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": kind}}
    args = GeoTrainingArguments(
        output_dir=str(folder),
        optim="fromage",
        max_steps=6,
        save_steps=2,
        per_device_train_batch_size=4,
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        **sharded,
    )
    trainer = GeoTrainer(model, args, train_dataset=data, callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=resume)
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)


def main(folder: str, mode: str, rank: str) -> None:
    states = {"unbroken": train(Path(folder) / "unbroken", mode)}
    mine = dist.get_rank() == int(rank)
    limit = Between(4, lambda: limit_files(1000 if mine else -1), lambda: limit_files(-1))
    states["broken"] = train(Path(folder) / "broken", mode, limit)
    states["resumed"] = train(Path(folder) / "resumed", mode, resume=str(Path(folder) / "broken" / "checkpoint-2"))
    if dist.get_rank() == 0:
        for name, state in states.items():
            save_file({key: tensor.contiguous() for key, tensor in state.items()}, Path(folder) / f"{name}.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
