"""What would stop a run after it began is found before."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import has_length

from hf_geo.optim import list_optimizers

_MANY = 1_000_000  # updates, of which any warm-up is a part
# Settings of transformers that take the labels or the metrics away on which a run's results are based.
_NEEDED = {
    "label_names": None,
    "prediction_loss_only": False,
    "batch_eval_metrics": False,
    "eval_do_concat_batches": True,
}


def check_settings(args: TrainingArguments, metrics: Collection[str]) -> None:
    """Refuses settings with which a run could not be evaluated.

    Args:
        args: The run's settings.
        metrics: Names of what its evaluation measures.

    Raises:
        ValueError: `metric_for_best_model` is none of these, or a setting keeps them from being measured.
    """
    for name, needed in _NEEDED.items():
        if getattr(args, name) != needed:
            raise ValueError(f"--{name} {getattr(args, name)} would leave a run without its results: leave it out.")
    best = args.metric_for_best_model
    if best is not None and best.removeprefix("eval_") not in metrics:
        raise ValueError(
            f"--metric_for_best_model {best} is not measured: choose {' or '.join(metrics)}, or leave it out."
        )


def check_trainer(trainer: Trainer) -> None:
    """Makes the loader and the optimizer, and a schedule for a stand-in of it, to hear what they do not take.

    Raises:
        ValueError: One of them does not take its settings, or there is not one batch to train on.
        ImportError: The optimizer needs a package that is not installed.
    """
    args = trainer.args
    loader = trainer.get_train_dataloader()
    if has_length(loader) and len(loader) == 0:
        raise ValueError(
            f"--dataloader_drop_last leaves no batch of {args.per_device_train_batch_size} to train on, as there are only "
            f"{len(trainer.train_dataset)} samples: choose a smaller --per_device_train_batch_size."
        )
    if args.optim in list_optimizers():
        trainer.create_optimizer()
    elif not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):  # which have it made after the model is sharded
        try:
            trainer.create_optimizer()
        except (TypeError, ValueError) as error:
            given = f" with --optim_args {args.optim_args!r}" if args.optim_args else ""
            raise ValueError(
                f"--optim {args.optim.value} cannot be made{given}: {error}; change what it takes."
            ) from error
    stand_in = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    try:
        trainer.create_scheduler(num_training_steps=_MANY, optimizer=stand_in)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"--lr_scheduler_type {args.lr_scheduler_type.value} cannot be made with --lr_scheduler_kwargs "
            f"{args.lr_scheduler_kwargs}: {error}; change one of them."
        ) from error
    trainer.lr_scheduler = None


@contextmanager
def no_empty_folder(folder: str | os.PathLike) -> Iterator[None]:
    """Removes `folder`, and the ones above it, where they are made inside and left empty by a mistake."""
    folder = Path(folder).absolute()
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except Exception:
        for path in new:
            with suppress(FileNotFoundError):  # another process was first
                if not any(path.iterdir()):
                    path.rmdir()
        raise
