"""One problem with every optimizer through several loops: GeoTrainer, transformers' Trainer, plain Accelerate, plain PyTorch."""

import tempfile
from pathlib import Path

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

EPOCHS = 2  # of 5 updates of 8 samples each
BATCH = 8
PROBLEMS = [("points", name) for name in list_optimizers()] + [("sentences", "alig"), ("sentences", "sgdg")]


def by_trainer(kind: str, name: str, batch: int, accumulation: int, trainer=GeoTrainer, arguments=GeoTrainingArguments):
    model, data = make_problem(kind)
    with tempfile.TemporaryDirectory() as folder:
        args = arguments(
            output_dir=folder, optim=name, num_train_epochs=EPOCHS, per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation, train_sampling_strategy="sequential", save_strategy="no",
            label_smoothing_factor=0.1 if kind == "points" else 0.0, logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer(model, args, train_dataset=data).train()
    return flat(model)


def smoothed_loss(outputs: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(outputs["logits"], labels, label_smoothing=0.1)


def by_loop(name: str, accelerator: Accelerator | None = None) -> torch.Tensor:
    """Whole updates in plain PyTorch; with an accelerator the loop of the README, two micro-batches an update."""
    model, data = make_problem("points")
    optimizer = create_optimizer(name, model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1 - step / (EPOCHS * 5)
    )  # transformers' default
    is_clipped = get_method(name).clipping == "allowed"
    loader = DataLoader(data, batch_size=BATCH // 2 if accelerator else BATCH)
    if accelerator:
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        loss_of_update = LossOfUpdate(accelerator)
    for epoch in range(EPOCHS):
        data.set_epoch(epoch)
        for batch in loader:
            if accelerator is None:
                loss = smoothed_loss(model(**batch), batch["labels"])
                loss.backward()
                if is_clipped:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step(lambda: loss)  # noqa: B023
                scheduler.step()
                optimizer.zero_grad()
                continue
            with accelerator.accumulate(model):
                loss = smoothed_loss(model(**batch), batch["labels"])
                accelerator.backward(loss)
                loss_of_update.add(loss / accelerator.gradient_accumulation_steps)
                if accelerator.sync_gradients and is_clipped:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step(loss_of_update)
                if accelerator.sync_gradients:
                    scheduler.step()
                optimizer.zero_grad()
    return flat(accelerator.unwrap_model(model) if accelerator else model)


def run(folder: Path) -> None:
    processes, found = Accelerator().num_processes, {}
    for kind, name in PROBLEMS:
        for accumulation in (1, 2) if processes == 1 else (2,):
            batch = BATCH // processes // accumulation
            found[f"{kind}/{name}/{processes} x {batch} x {accumulation}"] = by_trainer(kind, name, batch, accumulation)
        if processes == 1 and kind == "points":
            found[f"{kind}/{name}/accelerate"] = by_loop(name, Accelerator(cpu=True, gradient_accumulation_steps=2))
            found[f"{kind}/{name}/torch"] = by_loop(name)
    if processes == 1:
        register_transformers()  # for good, therefore last
        for kind, name in PROBLEMS:
            found[f"{kind}/{name}/transformers"] = by_trainer(kind, name, BATCH // 2, 2, Trainer, TrainingArguments)
    if Accelerator().is_main_process:
        save_file(found, folder / "trajectories.safetensors")
