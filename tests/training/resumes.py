"""Trainings with every optimizer that save at every update, and are resumed from some of their checkpoints."""

from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import save_file

from tests.training.problems import flat, make_trainer

UPDATES = 8  # three an epoch
# Micro-batches an update, and the updates it is resumed from: inside the first epoch, at its end, before the last update.
RUNS = {"alig": (4, (2, 3, 7)), "adamsrt": (1, (2,)), "fromage": (1, (3,)), "adams": (1, (7,)), "sgdmrt": (1, (2,)),
        "sgdg": (4, (7,)), "adamg": (1, (3,))}  # fmt: skip


def train(name: str, folder: Path, checkpoint: Path | None = None):
    accumulation = RUNS[name][0]
    trainer = make_trainer(
        folder, optim=name, dropout=0.3, max_steps=UPDATES, gradient_accumulation_steps=accumulation, warmup_steps=2,
        per_device_train_batch_size=16 // Accelerator().num_processes // accumulation, lr_scheduler_type="cosine",
        save_strategy="steps", save_steps=1 if checkpoint is None else UPDATES,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    return flat(trainer.model)


def run(folder: Path) -> None:
    found = {}
    for name, (_, stops) in RUNS.items():
        whole = folder / f"resumed-{name}"
        found[f"{name}/unbroken"] = train(name, whole)
        for step in stops:
            found[f"{name}/{step}"] = train(name, whole.with_suffix(".again"), whole / f"checkpoint-{step}")
    if Accelerator().is_main_process:
        save_file(found, folder / "resumes.safetensors")
