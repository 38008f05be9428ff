"""Runs one problem with every optimizer through several loops, and saves the final weights: FILE.safetensors as argument.

With one process: GeoTrainer with whole and with accumulated batches, transformers' Trainer, a plain Accelerate loop, a
plain PyTorch loop. With two: GeoTrainer with whole and with accumulated batches.
"""

import gc
import sys
import tempfile

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from hf_geo import GeoTrainer, GeoTrainingArguments
from hf_geo.integrations import register_transformers
from hf_geo.optim import create_optimizer, get_method, list_optimizers
from hf_geo.training.loss import LossOfUpdate
from tests.training.problems import flat, make_problem

EPOCHS = 4  # of 5 updates of 8 samples each
BATCH = 8


def by_trainer(kind: str, name: str, batch: int, accumulation: int, trainer=GeoTrainer, arguments=GeoTrainingArguments):
    model, data = make_problem(kind)
    with tempfile.TemporaryDirectory() as folder:
        args = arguments(
            output_dir=folder,
            optim=name,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            train_sampling_strategy="sequential",
            label_smoothing_factor=0.1 if kind == "points" else 0.0,
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer(model, args, train_dataset=data).train()
    return flat(model)


def scheduler_of(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (EPOCHS * 5))  # transformers' default


def smoothed_loss(outputs: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs["logits"], labels, label_smoothing=0.1)


def by_accelerate(name: str):
    """The loop of the README: two micro-batches an update."""
    model, data = make_problem("points")
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    optimizer = create_optimizer(name, model)
    clip = 1.0 if get_method(name).clipping == "allowed" else None
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data, batch_size=BATCH // 2))
    scheduler = scheduler_of(optimizer.optimizer)
    loss_of_update = LossOfUpdate(accelerator)
    for epoch in range(EPOCHS):
        data.set_epoch(epoch)
        for batch in loader:
            with accelerator.accumulate(model):
                loss = smoothed_loss(model(**batch), batch["labels"])
                accelerator.backward(loss)
                loss_of_update.add(loss / accelerator.gradient_accumulation_steps)
                if accelerator.sync_gradients and clip:
                    accelerator.clip_grad_norm_(model.parameters(), clip)
                optimizer.step(loss_of_update)
                if accelerator.sync_gradients:
                    scheduler.step()
                optimizer.zero_grad()
    return flat(accelerator.unwrap_model(model))


def by_hand(name: str):
    model, data = make_problem("points")
    optimizer = create_optimizer(name, model)
    scheduler = scheduler_of(optimizer)
    for epoch in range(EPOCHS):
        data.set_epoch(epoch)
        for batch in DataLoader(data, batch_size=BATCH):
            loss = smoothed_loss(model(**batch), batch["labels"])
            loss.backward()
            if get_method(name).clipping == "allowed":
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step(lambda: loss)  # noqa: B023
            scheduler.step()
            optimizer.zero_grad()
    return flat(model)


def main(path: str) -> None:
    gc.freeze()  # accelerate collects garbage before each training, among all that was imported
    found = {}
    processes = Accelerator().num_processes
    for name in list_optimizers():
        for kind in ("points", "sentences"):
            for accumulation in (1, 2):
                batch = BATCH // processes // accumulation
                found[f"{kind}/{name}/{processes} x {batch} x {accumulation}"] = by_trainer(
                    kind, name, batch, accumulation
                )
        if processes == 1:
            found[f"points/{name}/accelerate"] = by_accelerate(name)
            found[f"points/{name}/torch"] = by_hand(name)
    if processes == 1:
        register_transformers()
        for name in list_optimizers():
            for kind in ("points", "sentences"):
                for parts in (1, 2):
                    batch, way = BATCH // parts, f"transformers {BATCH // parts} x {parts}"
                    found[f"{kind}/{name}/{way}"] = by_trainer(kind, name, batch, parts, Trainer, TrainingArguments)
    if Accelerator().is_main_process:
        save_file(found, path)


if __name__ == "__main__":
    main(sys.argv[1])
