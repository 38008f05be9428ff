"""Several processes under DDP: which parameters an update has to look for, and an end without an abort."""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import Trainer

from hf_geo.checkpoints.disk import first_error_across_ranks
from hf_geo.errors import in_words
from hf_geo.optim._probe import seeded_generators, substituted

from .optimizers import load_samples

logger = logging.getLogger(__name__)
OPTION = "--ddp_find_unused_parameters true"
DRAWS = 4  # passes under other random numbers, for layers that are skipped at random


class UnusedParametersError(RuntimeError):
    """Some parameters had no part in an update's loss, and DDP was not told to look for such ones."""


def choose_search(trainer: Trainer) -> None:
    """Has DDP look for unused parameters at each update only where the model has some.

    transformers (5.24) has it look always, except under gradient checkpointing, which takes a walk over the graph at each
    update. What the user has set stays.

    Args:
        trainer: A Trainer, before it trains. All processes call this.
    """
    args, handler = trainer.args, trainer.accelerator.ddp_handler
    given = args.ddp_find_unused_parameters is not None or args.ddp_static_graph
    is_ddp = trainer.accelerator.distributed_type.startswith("MULTI_")
    if given or not is_ddp or not handler.find_unused_parameters:
        return
    unused, failure = set(), None
    try:
        unused = unused_parameters(trainer)
    except Exception as error:  # training will raise it too, or the model cannot be tried in this way
        failure = in_words(error)
    log = logger.warning if trainer.is_world_process_zero() else logger.debug
    if failure := first_error_across_ranks(failure):
        log(
            "DDP looks for unused parameters at each update, because it could not be tried whether there are any: %s. (%s "
            "does so without a trial.)",
            failure,
            OPTION,
        )
        return
    names = first_error_across_ranks(sorted(unused) or None)
    handler.find_unused_parameters = bool(names)
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        log(
            "DDP looks for unused parameters at each update, because these had no part in the loss of a trial: %s. If they "
            "never have one, freezing them (requires_grad_(False)) saves the time.",
            ", ".join(names[:5]) + more,
        )


def unused_parameters(trainer: Trainer) -> set[str]:
    """Finds the trainable parameters that have no part in the loss of a small batch of training data.

    Model, gradients and random number generators stay as they are.
    """
    model, batch_size = trainer.model, trainer.args.train_batch_size
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    copies: dict[int, Tensor] = {}

    def without_parameters(key: Any, value: Any) -> Any:
        """A copy of a buffer or another tensor, which the model may write to."""
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            return copies.setdefault(id(value), value.clone())
        return value

    trainer.current_gradient_accumulation_steps = 1  # transformers (5.17) sets it when training begins
    unused: set[str] = set()
    devices = {parameter.device for parameter in model.parameters()}
    with seeded_generators(0, devices):
        loader = trainer.get_train_dataloader()
    for seed in range(DRAWS):
        with seeded_generators(seed, devices), substituted(model, without_parameters):
            batch = trainer._prepare_inputs(loader.collate_fn(load_samples(loader.dataset)[:batch_size]))
            model.train()
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(model, batch)
            gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        unused |= {name for name, gradient in zip(trained, gradients, strict=True) if gradient is None}
    return unused


@contextmanager
def unused_parameters_named() -> Iterator[None]:
    """Turns DDP's error about unused parameters, inside the context, into one that names the option.

    Raises:
        UnusedParametersError: It has occurred.
    """
    try:
        yield
    except RuntimeError as error:
        if "Expected to have finished reduction in the prior iteration" not in str(error):
            raise
        raise UnusedParametersError(
            "Some parameters had no part in the loss of the last update, so DDP could not average its gradients over the "
            f"processes: add {OPTION}, or freeze them."
        ) from error


def end_process_groups() -> None:
    """Ends gloo's threads while the interpreter is whole.

    A thread of gloo that drops a tensor while the interpreter ends aborts the process (pytorch/pytorch#190489). Destroying the
    groups waits for the threads, once nothing else holds the groups: a DDP model does, and a traceback may hold that.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_backend() != "gloo":
        return
    for module in gc.get_objects():
        if issubclass(type(module), DistributedDataParallel):
            vars(module).clear()
    gc.collect()
    dist.destroy_process_group()
