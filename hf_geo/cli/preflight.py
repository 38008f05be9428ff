"""Checks before a run: what would stop it after it began is reported at the start."""

import copy
import dataclasses
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from accelerate.utils import send_to_device
from transformers import Trainer, TrainingArguments
from transformers.debug_utils import DebugOption
from transformers.trainer_utils import has_length
from transformers.utils import is_liger_kernel_available, is_torch_xla_available

from hf_geo.checkpoints.disk import disk_failure, first_error_across_ranks
from hf_geo.data.config import DataArguments
from hf_geo.errors import in_words
from hf_geo.models.config import ModelArguments
from hf_geo.optim import list_optimizers
from hf_geo.tasks import COMMON_OPTIONS, Task
from hf_geo.training.checks import check_shared_folder
from hf_geo.training.norms import has_batch_norms
from hf_geo.training.optimizers import load_samples

_TRIAL = "_trial"  # in a run's folder, a name that is not pushed with it
_MANY = 1_000_000  # updates, of which any warm-up is a part
# Settings of transformers that take the labels or the metrics away on which a run's results are based.
_NEEDED = {
    "label_names": None,
    "prediction_loss_only": False,
    "batch_eval_metrics": False,
    "eval_do_concat_batches": True,
}


def check_options(task: Task, typed: Collection[str], model_args: ModelArguments, data_args: DataArguments) -> None:
    """Refuses options of models and data that the task does not read.

    Args:
        task: What is trained.
        typed: Names of the options on the command line; what a recipe sets may serve other variants of it.
        model_args: The values of the model's options.
        data_args: The values of the data's options.

    Raises:
        ValueError: One of those on the command line belongs to other tasks, and does not keep its default.
    """
    changed = {
        field.name
        for some in (model_args, data_args)
        for field in dataclasses.fields(some)
        if getattr(some, field.name) != field.default
    }
    if stray := sorted(changed & set(typed) - COMMON_OPTIONS - set(task.options)):
        raise ValueError(f"--{stray[0]} is not for {task.name}, where it changes nothing: leave it out.")


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
    """Makes the data loader, the optimizer and the schedule, so that a setting that they refuse is reported before training.

    Raises:
        ValueError: One of them refuses its settings, there is not one batch to train on, the network cannot train on
            one sample alone, or the machines' disks are not as `save_on_each_node` says.
        ImportError: The optimizer or an option needs a package that is not installed.
    """
    args = trainer.args
    _check_packages(args)
    _check_batches(trainer)
    check_shared_folder(args)
    _check_optimizer(trainer)
    stand_in = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    try:
        trainer.create_scheduler(num_training_steps=_MANY, optimizer=stand_in)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"--lr_scheduler_type {args.lr_scheduler_type.value} cannot be made with --lr_scheduler_kwargs "
            f"{args.lr_scheduler_kwargs}: {error}; change one of them."
        ) from error
    trainer.lr_scheduler = None


def _check_packages(args: TrainingArguments) -> None:
    for is_needed, is_available, option, package in (
        (args.use_liger_kernel, is_liger_kernel_available, "--use_liger_kernel", "liger-kernel"),
        (DebugOption.TPU_METRICS_DEBUG in args.debug, is_torch_xla_available, "--debug tpu_metrics_debug", "torch_xla"),
    ):
        if is_needed and not is_available():
            raise ImportError(f"{option} needs a package that is not here: pip install {package}, or leave it out.")


def _check_batches(trainer: Trainer) -> None:
    batch_size, loader = trainer.args.per_device_train_batch_size, trainer.get_train_dataloader()
    if has_length(loader) and len(loader) == 0:
        raise ValueError(
            f"--dataloader_drop_last leaves no batch of {batch_size} to train on, as there are only "
            f"{len(trainer.train_dataset)} samples: choose a smaller --per_device_train_batch_size."
        )
    if batch_size > 1 or not has_batch_norms(trainer.model):
        return
    model = copy.deepcopy(trainer.model).train()  # training must not notice this pass
    batch = loader.collate_fn(load_samples(loader.dataset)[:1])
    try:
        with torch.no_grad(), torch.random.fork_rng():
            model(**send_to_device(batch, next(model.parameters()).device))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "--per_device_train_batch_size 1 gives this network's batch norms a single value to normalize, which has no "
            "variance: choose 2 or more."
        ) from error


def _check_optimizer(trainer: Trainer) -> None:
    args = trainer.args
    if args.optim in list_optimizers():
        trainer.create_optimizer()
    elif trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:  # it is made after the model is sharded
        trainer.get_optimizer_cls_and_kwargs(args, trainer.model)
    else:
        try:
            trainer.create_optimizer()
        except (TypeError, ValueError) as error:
            given = f" with --optim_args {args.optim_args!r}" if args.optim_args else ""
            raise ValueError(
                f"--optim {getattr(args.optim, 'value', args.optim)} cannot be made{given}: {str(error).rstrip('.')}; change what it takes."
            ) from error


def check_export(export: Callable[[Path], object], folders: Sequence[str | None], *, first: bool) -> None:
    """Exports the network before it is trained, into the first of the folders that takes it, and removes it again.

    Args:
        export: Writes into the folder it is given, and opens what it wrote.
        folders: Where the result may go, in this order.
        first: Whether this process has the files; every process calls this.

    Raises:
        ValueError: The network cannot be exported, or the disk refuses it in every folder.
    """
    failure = first_error_across_ranks(_try_export(export, [folder for folder in folders if folder]) if first else None)
    if failure:
        raise ValueError(failure)


def _try_export(export: Callable[[Path], object], folders: Sequence[str]) -> str | None:
    """Returns a sentence on why no export is possible; None if one is."""
    refusals = []
    for folder in folders:
        trial = Path(folder, _TRIAL)
        try:
            shutil.rmtree(trial, ignore_errors=True)  # of a killed process
            trial.mkdir(parents=True)
            export(trial)
            return None
        except Exception as error:
            reason = disk_failure(error)
            if reason is None:
                return f"The network could be trained but not saved ({in_words(error)}): choose another --model."
            refusals.append(f"to {folder!r}, because {reason}")
        finally:
            shutil.rmtree(trial, ignore_errors=True)
    return f"The result could not be written {', nor '.join(refusals)}: make room there, or name a --fallback_dir that has room."


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
