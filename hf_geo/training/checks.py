"""Refuses combinations of settings, models and machines under which a run would be wrong, or would be lost."""

import logging
import os
import secrets
from pathlib import Path

from accelerate.state import PartialState
from accelerate.utils import DistributedType, broadcast_object_list
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import HubStrategy, has_length

from hf_geo.checkpoints.disk import first_error_across_ranks, try_write
from hf_geo.optim import list_optimizers
from hf_geo.subspaces import Subspace, SubspaceConfig

from .arguments import GeoTrainingArguments
from .averaging import kind_of_average
from .optimizers import refuse_engine

logger = logging.getLogger(__name__)


def check_combination(trainer: Trainer, subspace: Subspace | SubspaceConfig | None) -> None:
    """Checks a Trainer's settings, engine and data against each other.

    Raises:
        TypeError: Its arguments are no `GeoTrainingArguments`.
        ValueError: Two settings contradict each other, or one does not work with this engine or data set.
    """
    args = trainer.args
    if not isinstance(args, GeoTrainingArguments):
        raise TypeError(f"GeoTrainer takes GeoTrainingArguments, not {type(args).__name__}.")
    check_processes(args)
    if args.optim in list_optimizers():
        refuse_engine(args)  # also where the engine would bring its own optimizer
    average = kind_of_average(args)
    if average:
        refuse_engine(args, average)
    if args.log_geometry and trainer.is_deepspeed_enabled:
        raise ValueError(
            "--log_geometry reads whole gradients, which DeepSpeed hides: use DDP or FSDP2, or leave it out."
        )
    if subspace is not None:
        _check_subspace(trainer, getattr(subspace, "config", subspace), average)
    if trainer.train_dataset is not None and not has_length(trainer.train_dataset):
        if args.milestones:
            raise ValueError(
                "--milestones are epochs, and a stream has no known length: choose an --lr_scheduler_type."
            )
        if average == "SWA":
            raise ValueError("--swa_start averages epochs, and a stream has no known length: choose --ema_decay.")


def _check_subspace(trainer: Trainer, config: SubspaceConfig, average: str | None) -> None:
    if average:
        raise ValueError(
            f"{average} and a subspace are two ways to one better network: leave out --subspace, or --swa_start and --ema_decay."
        )
    if trainer.model_init is not None:
        raise ValueError("A subspace belongs to one model, which model_init would replace: give GeoTrainer the model.")
    if trainer.args.push_to_hub and trainer.args.hub_strategy != HubStrategy.END:
        logger.warning(
            "A subspace is pushed at the end only: its checkpoints hold control points, which no library opens."
        )
    if config.num_samples > 1 and trainer.args.gradient_checkpointing:
        raise ValueError(
            f"Gradient checkpointing runs the network again at the last of a batch's {config.num_samples} positions, which is "
            "wrong for the others: use one position a batch (--subspace_samples 1), or no checkpointing."
        )


def check_processes(args: TrainingArguments) -> None:
    """Raises `ValueError` where a launcher started several processes that do not know of each other."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1 and args.world_size == 1:
        raise ValueError(
            f"{started} processes were started, but each would train alone into the same folder, because accelerate joins "
            "processes without an accelerator only where it is told to: set ACCELERATE_USE_CPU=true, or use "
            "accelerate launch --config_file configs/accelerate/cpu_2_processes.yaml."
        )


def check_shared_folder(args: TrainingArguments) -> None:
    """Checks, with several processes, that each sees the output folder of exactly one process that saves there.

    Every process calls this; each one that saves writes and removes one small file.

    Raises:
        ValueError: The machines have different disks and `save_on_each_node` is off, or they share one and it is on; or FSDP
            is to save on each.
    """
    if args.world_size == 1 or args.save_strategy == "no":
        return
    if args.save_on_each_node and PartialState().distributed_type == DistributedType.FSDP:
        raise ValueError(
            "--save_on_each_node saves whole checkpoints, and FSDP's are in parts: choose an --output_dir on a shared disk."
        )
    run_id = [secrets.token_hex(8)]
    broadcast_object_list(run_id)
    tokens = [Path(args.output_dir, f"_shared-{run_id[0]}-{rank}") for rank in range(args.world_size)]
    own = tokens[args.process_index]

    def leave_token() -> None:
        own.parent.mkdir(parents=True, exist_ok=True)
        own.touch()

    # Where the disk refuses this, saving will report it.
    refusal = first_error_across_ranks(try_write(leave_token) if args.should_save else None)
    seen = [rank for rank, token in enumerate(tokens) if token.exists()]
    missing = None if seen else f"process {args.process_index} does not see what the first one writes"
    missing = first_error_across_ranks(missing)
    twice = f"processes {seen[0]} and {seen[1]} would write the same files" if len(seen) > 1 else None
    twice = first_error_across_ranks(twice)
    if args.should_save:
        try_write(lambda: own.unlink(missing_ok=True))
    if refusal:
        return
    if missing:
        raise ValueError(
            f"The machines do not share the disk of {args.output_dir!r} ({missing}), so a checkpoint would be "
            "whole on none of them: add --save_on_each_node true, or choose an --output_dir on a shared disk."
        )
    if twice:
        raise ValueError(
            f"The machines share the disk of {args.output_dir!r} ({twice}): leave out --save_on_each_node, "
            "which is for machines with disks of their own."
        )
