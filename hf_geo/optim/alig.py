"""ALI-G: the step size follows from the loss, on the premise that the loss can be brought to zero.

Berrada, Zisserman, Kumar: Training Neural Networks for and by Interpolation. ICML 2020, arXiv 1906.05661.
"""

import math
from collections.abc import Callable
from functools import reduce
from operator import itemgetter
from typing import Any, ClassVar

import torch
from torch import Tensor

from ._base import GeometricOptimizer, check_flag, check_number
from ._losses import LossWatch, as_scalar, check_lower_bound
from .kernels.blocks import batches, cut_large
from .kernels.fused import kernel_ready, sgd_step
from .kernels.shards import local, local_grad, norms, zeros_like

# The `lr` of an unbounded group: finite, so that a scheduler's change of it can be seen (a tenth of infinity cannot).
UNBOUNDED = torch.finfo(torch.float32).max
# The attributes that copies and pickles hold beside torch's.
KEPT = ("projection_fn", "step_size", "step_size_unclipped", "_loss", "_skipped", "_watch")


class AliG(GeometricOptimizer):
    """ALI-G: SGD whose step size is the loss over the squared gradient norm, up to a bound.

    With the loss l of the gradients g at hand, taken over all parameters of all groups, and its lower bound b* (0 in the paper),

        size <- min(lr, max(0, l - b*) / (|g|^2 + eps))
        b <- momentum * b + size * g
        w <- w - size * g - momentum * b

    or, with `adjusted_momentum`, b <- momentum * b + g and w <- w - size * (g + momentum * b). Then all parameters
    together are scaled back to the norm `max_norm` if they exceed it, or `projection_fn()` is called.

    `step` needs the loss: as the value of its closure, `step(lambda: loss)`, which does not have to evaluate the model
    again; or through `set_loss(loss)` before `step()`. It is the loss whose gradient is at hand: averaged over processes
    and micro-batches as the gradient is, and not scaled for mixed precision. Do not clip the gradient: the step grows.
    With a loss at or below its bound no step is taken; if losses start like that, as in policy optimization, a warning says so
    once (of losses that are numbers or on the CPU: reading others would wait for the device).

    A step whose loss or gradient norm is not finite changes nothing, and is counted in `skipped_steps`. After a step,
    `step_size` and `step_size_unclipped` are 0-dim tensors for logs (of the first group with gradients), with and without the bound.

    Args:
        params: Parameters, or groups of them.
        lr: Largest step size (the paper's eta), a number or a tensor of one; None or infinity for none. An unbounded step has
            nothing to schedule: if a scheduler changes its `lr`, the next step raises.
        momentum: Nesterov momentum, in [0, 1).
        max_norm: Largest norm of all parameters together, from construction on, the same in all groups; None for none.
        eps: Added to the squared gradient norm.
        adjusted_momentum: Whether the buffer holds gradients, and not steps.
        projection_fn: Called without arguments after construction and after every step. It is not saved, and has to look
            parameters up when called, as an engine may have exchanged them.
        fused: As in `Fromage`.
        lower_bound: The least value that the loss can take, of either sign, the same in all groups: 0 where every sample
            can be fitted. Above the true least value, steps end early; below it, they stay large at the minimum.

    Raises:
        TypeError: A setting is not of its kind.
        ValueError: A setting is out of its range; both `max_norm` and `projection_fn`; groups with different `max_norm` or
            `lower_bound`.

    Differs from the authors' code: the bound is called `lr`, so schedulers drive it; a loss below its bound counts as at it; the bound
    may be another number than 0; steps that are not finite are left out; `max_norm` is a setting; nothing waits for the device.

    Example:
        >>> optimizer = AliG(model.parameters(), lr=0.1, momentum=0.9)
        >>> loss.backward()
        >>> optimizer.step(lambda: loss)
    """

    later_settings: ClassVar = {"fused": None, "lower_bound": 0.0}
    step_size: Tensor | None = None
    step_size_unclipped: Tensor | None = None
    projection_fn: Callable[[], None] | None = None
    _loss: Tensor | None = None
    _skipped: Tensor | None = None

    def __init__(
        self,
        params: Any,
        lr: float | Tensor | None = None,
        momentum: float = 0.0,
        max_norm: float | None = None,
        eps: float = 1e-5,
        adjusted_momentum: bool = False,
        projection_fn: Callable[[], None] | None = None,
        fused: bool | None = None,
        lower_bound: float = 0.0,
    ) -> None:
        if projection_fn is not None and not callable(projection_fn):
            raise TypeError(f"projection_fn has to be a function without arguments or None, not {projection_fn!r}.")
        self.projection_fn = projection_fn
        self._watch = LossWatch()
        defaults = {"lr": lr, "momentum": momentum, "max_norm": max_norm, "eps": eps, "lower_bound": lower_bound}
        super().__init__(params, {**defaults, "adjusted_momentum": adjusted_momentum, "fused": fused})
        self._project()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: vars(self)[name] for name in KEPT if name in vars(self)}}

    def _check_group(self, group: dict[str, Any]) -> None:
        if "projection_fn" in group:
            raise TypeError(
                f"projection_fn={group['projection_fn']!r} cannot belong to a group, as groups are saved: give it to "
                "AliG itself."
            )
        group["unbounded"] = not isinstance(group["lr"], Tensor) and group["lr"] in (None, math.inf)
        if group["unbounded"]:
            group["lr"] = UNBOUNDED
        check_number(group, "lr", tensor=True)
        check_number(group, "momentum", below=1.0)
        check_number(group, "eps")
        check_number(group, "max_norm", positive=True, optional=True)
        check_flag(group, "adjusted_momentum")
        if group["max_norm"] is not None and self.projection_fn is not None:
            raise ValueError(f"max_norm={group['max_norm']} and projection_fn were both given: give one of them.")
        check_lower_bound(group)
        subjects = {"max_norm": "bounds all parameters", "lower_bound": "is of the loss of all parameters"}
        for name, subject in subjects.items():
            first = self.param_groups[0][name]
            if group[name] != first:
                raise ValueError(
                    f"{name} {subject} together, but one group has {first} and another {group[name]}: give one value to "
                    "AliG itself."
                )

    def set_loss(self, loss: float | Tensor) -> None:
        """Hands over the loss that belongs to the gradients at hand, for the next `step()` alone.

        `zero_grad()` drops it with those gradients, so that none outlives a step that was left out on overflow.

        Raises:
            TypeError: Not a number.
            ValueError: More than one number.
        """
        self._loss = as_scalar(loss)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients, as in torch, and the loss that `set_loss` handed over for them."""
        self._loss = None
        super().zero_grad(set_to_none)

    @property
    def skipped_steps(self) -> int:
        """The number of steps skipped for a loss or gradient that was not finite. Reading it waits for the device."""
        return 0 if self._skipped is None else int(self._skipped)

    def _update(self, loss: Any) -> None:
        loss, self._loss = self._loss if loss is None else as_scalar(loss), None
        lower_bound = self.param_groups[0]["lower_bound"]
        if loss is None:
            loss = self._default_loss()
        else:
            self._refuse_schedules()
            self._watch.check(loss, lower_bound)
        work = []
        for group, members in filter(itemgetter(1), self._groups_with_gradient()):
            keys = ("momentum_buffer",) if group["momentum"] else ()
            self._ensure_state(members, **dict.fromkeys(keys, zeros_like))
            work.append((group, keys, *self._fuse(group, members, keys, normed=True)))
        if not work:
            return
        unfused = [p for *_, others in work for p in others]
        sq_norm = _squared_norm([table for *_, tables, _ in work for table in tables], unfused, local_grad)
        loss = loss.to(sq_norm) - lower_bound if lower_bound else loss.to(sq_norm)  # 0 costs no operation
        if self._skipped is None:
            self._skipped = torch.zeros((), device=sq_norm.device)
        skip, sizes = None, []
        for group, keys, tables, others in work:
            if not unfused:
                counted = self._skipped if skip is None else torch.empty_like(self._skipped)  # once a step
                size, unclipped, skip = tables[0].limit_step(sq_norm, loss, group["lr"], group["eps"], counted)
            else:
                if skip is None:
                    skip = (~(loss.isfinite() & sq_norm.isfinite())).float()
                    self._skipped += skip
                # size <- min(lr, max(0, l - b*) / (|g|^2 + eps))
                unclipped = (loss / (sq_norm + group["eps"])).clamp(min=0.0).nan_to_num(0.0)
                size = unclipped.clamp(max=group["lr"])
            sizes.append((size, unclipped))
            numbers = group["momentum"], float(group["adjusted_momentum"])
            for table in tables:
                table.step("alig", size, numbers, has_m=bool(keys), products=False, skip=skip)
            for batch in batches(others):
                for lists in kernel_ready(*self._local_tensors(batch, *keys)):
                    alig(*lists, size=size, skip=skip, momentum=numbers[0], adjusted=group["adjusted_momentum"])
        self.step_size, self.step_size_unclipped = sizes[0]
        self._project()

    def _default_loss(self) -> Tensor:
        # torch.distributed.checkpoint takes a step with lr 0 to create the state: that one needs no loss.
        if all(float(group["lr"]) == 0 for group in self.param_groups):
            return torch.tensor(0.0)
        raise RuntimeError(
            "AliG needs the loss of the gradients at hand, which makes the size of its step: pass a closure that returns it, "
            "step(lambda: loss), or call set_loss(loss) before step() (and after zero_grad(), which drops it)."
        )

    def _refuse_schedules(self) -> None:
        for group in self.param_groups:
            if group["unbounded"] and group["lr"] != UNBOUNDED:
                raise RuntimeError(
                    f"This ALI-G is unbounded (lr=None), but its lr was set to {group['lr']}, as by a scheduler: a step without "
                    "a bound has nothing to schedule. Give AliG a number as lr, the largest step, or use no scheduler."
                )

    @torch.no_grad()
    def _project(self) -> None:
        """Projects the parameters into their set."""
        if self.projection_fn is not None:
            self.projection_fn()
        groups, max_norm = self.param_groups, self.param_groups[0]["max_norm"]
        if max_norm is None:
            return
        params = self._memory.same_list([p for group in groups for p in group["params"]], len(groups))
        fused = groups[0]["fused"] if len({group["fused"] for group in groups}) == 1 else None
        tables, others = self._fuse({"fused": fused}, params, (), normed=True, gradients=local)
        ratio = max_norm / _squared_norm(tables, others, local).sqrt()
        # Weights that were just scaled to the bound may exceed it by rounding, and stay as they are.
        factor = torch.where(ratio < 1 - 8 * torch.finfo(ratio.dtype).eps, ratio, 1.0)
        for table in tables:
            table.step("scale", factor, (), has_m=False, products=False)
        for p in others:
            local(p).mul_(factor.to(p.device))


def _squared_norm(tables: list[Any], params: list[Tensor], tensor_of: Callable[[Tensor], Tensor]) -> Tensor:
    """The squared norm of the gradients in all tables and of `tensor_of` of all `params`, over all shards."""
    squares = [table.squared_gradient_norm() for table in tables]
    if params:
        squares.append(norms(params, [tensor_of(p) for p in params]).square().sum())
    return reduce(torch.add, [square.to(squares[0]) for square in squares])


def alig(
    weights: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor] | None = None,
    *,
    size: Tensor,
    skip: Tensor,
    momentum: float,
    adjusted: bool,
) -> None:
    """Takes a step of the given size in place, unless `skip` is 1. There are no buffers without momentum."""
    size = size.to(weights[0])
    if buffers is None or adjusted:
        # b <- momentum b + g,  w <- w - size (g + momentum b)
        has_momentum = buffers is not None
        sgd_step(weights, grads, buffers or [], lr=size, momentum=momentum, nesterov=has_momentum, skip=skip)
        return
    for w, g, b in cut_large(weights, grads, buffers):
        # b <- momentum b + size g,  w <- w - size g - momentum b
        sgd_step(w, torch._foreach_mul(g, size), b, lr=1.0, momentum=momentum, nesterov=True, skip=skip)
