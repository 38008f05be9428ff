"""Trains with every optimizer, saving at every update; resumes from some checkpoints; saves what both ended with."""

import sys
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import save_file

from hf_geo import GeoTrainer, GeoTrainingArguments
from hf_geo.optim import list_optimizers
from tests.training.problems import flat, make_problem

UPDATES = 8  # three an epoch
STOPS = (2, 3, 7)  # inside the first epoch, at its end, before the last update


def train(name: str, accumulation: int, folder: Path, checkpoint: Path | None = None):
    model, data = make_problem("points", dropout=0.3)
    args = GeoTrainingArguments(
        output_dir=str(folder),
        optim=name,
        max_steps=UPDATES,
        per_device_train_batch_size=16 // Accelerator().num_processes // accumulation,
        gradient_accumulation_steps=accumulation,
        save_steps=1 if checkpoint is None else UPDATES,
        logging_strategy="no",
        lr_scheduler_type="cosine",
        warmup_steps=2,
        disable_tqdm=True,
    )
    GeoTrainer(model, args, train_dataset=data).train(resume_from_checkpoint=checkpoint and str(checkpoint))
    return flat(model)


def main(path: str, folder: str) -> None:
    found = {}
    for name in list_optimizers():
        for accumulation in (1, 4):
            run = Path(folder) / f"{name}-{accumulation}"
            found[f"{name}/{accumulation}/unbroken"] = train(name, accumulation, run)
            for step in STOPS:
                found[f"{name}/{accumulation}/{step}"] = train(
                    name, accumulation, run.with_suffix(".resumed"), run / f"checkpoint-{step}"
                )
    if Accelerator().is_main_process:
        save_file(found, path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
