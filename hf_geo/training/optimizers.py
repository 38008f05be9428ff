"""From training arguments to the optimizer of a registered method, for our Trainer and for anybody's."""

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, broadcast_object_list
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from hf_geo.optim import create_optimizer, get_method, scale_invariant_parameters

from .optim_args import parse_optim_args

SAMPLES = 8  # of a batch, to measure with: more would cost time and show nothing new


def make_optimizer(
    args: TrainingArguments, model: nn.Module, *, batches: DataLoader | None = None, **grouping
) -> torch.optim.Optimizer:
    """The optimizer that `args.optim` names, with its parameter groups.

    Args:
        args: `optim` is a registered name; `learning_rate`, `weight_decay` and `optim_args` are used.
        model: The network, before any engine wraps it.
        batches: Training data to measure on which weights are scale-invariant; without it they are not measured.
        **grouping: What else `create_optimizer` takes to find the weights with a geometry.

    Raises:
        ValueError: A setting the method does not take, or an engine under which the method would be wrong.
    """
    refuse_engine(args)
    method = get_method(args.optim)
    settings, group_settings = parse_optim_args(method, args.optim_args)
    if batches is not None:
        grouping["invariant"] = measure_geometry(model, batches)
    return create_optimizer(
        method.name,
        model,
        lr=args.learning_rate,
        weight_decay=args.weight_decay,
        group_settings=group_settings,
        **settings,
        **grouping,
    )


def refuse_engine(args: TrainingArguments, name: str | None = None) -> None:
    """Refuses engines that hide whole weights or single gradients from what is called `name`, by default the optimizer.

    Raises:
        ValueError: DeepSpeed, FSDP with flattened parameters, or `nn.DataParallel` on several GPUs.
    """
    name = name or getattr(args.optim, "value", args.optim)
    if args.n_gpu > 1:
        raise ValueError(
            f"{args.n_gpu} GPUs are visible but one process was started, which would put the model into nn.DataParallel; "
            f"start one process a GPU: accelerate launch --num_processes {args.n_gpu} SCRIPT ... (or show one GPU in CUDA_VISIBLE_DEVICES)."
        )
    kind = PartialState().distributed_type
    if kind == DistributedType.DEEPSPEED:
        raise ValueError(
            f"{name} needs whole weights, which DeepSpeed's ZeRO flattens and splits: use DDP or FSDP2 (configs/accelerate/fsdp2.yaml)."
        )
    if kind == DistributedType.FSDP and AcceleratorState().fsdp_plugin.fsdp_version == 1:
        raise ValueError(
            f"{name} needs whole weights, which FSDP version 1 flattens: set fsdp_version: 2 (configs/accelerate/fsdp2.yaml)."
        )


def measure_geometry(model: nn.Module, loader: DataLoader) -> dict[str, tuple[int, ...]]:
    """The scale-invariant weights of `model`, measured by the first process on the first samples, the same for all.

    Args:
        model: The network, before any engine wraps it.
        loader: The training data; its order and random numbers are left alone.

    Raises:
        RuntimeError: On all processes, where the first one could not measure; the message says why.
    """
    answer: list[Any] = [None]
    if PartialState().is_main_process:
        try:
            batch = loader.collate_fn(first_samples(loader.dataset))
            answer = [scale_invariant_parameters(model, batch, progress=True)]
        except Exception as error:  # the other processes wait for an answer, whatever it is
            answer = [error]
    broadcast_object_list(answer)
    if isinstance(answer[0], Exception):
        raise RuntimeError(
            f"Which weights are scale-invariant could not be measured: {answer[0]} "
            "(--geometry_groups structure goes by the network's structure instead.)"
        ) from answer[0]
    return answer[0]


def first_samples(dataset: Iterable) -> list[Any]:
    """The first few samples, also of a stream."""
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return [dataset[i] for i in range(min(SAMPLES, len(dataset)))]
    return list(itertools.islice(dataset, SAMPLES))
