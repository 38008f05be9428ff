"""ALI-G: the step size follows from the loss, on the premise that it can be brought to zero.

Berrada, Zisserman, Kumar: Training Neural Networks for and by Interpolation. ICML 2020, arXiv 1906.05661.
"""

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ._base import GeometricOptimizer, check_flag, check_number
from ._fused import batches, sgd_step
from ._shards import local, local_grad, norms, zeros_like

# The `lr` of an unbounded group: finite, so that a scheduler's changes of it can be seen (0.1 * infinity cannot).
UNBOUNDED = torch.finfo(torch.float32).max


class AliG(GeometricOptimizer):
    """ALI-G."""

    projection_fn: Callable[[], None] | None = None
    _loss: Any = None
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
    ) -> None:
        if projection_fn is not None and not callable(projection_fn):
            raise TypeError(f"projection_fn has to be a function without arguments or None, not {projection_fn!r}.")
        self.projection_fn = projection_fn
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "max_norm": max_norm,
            "eps": eps,
            "adjusted_momentum": adjusted_momentum,
        }
        super().__init__(params, defaults)
        self._project(torch.tensor(True))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "projection_fn": self.projection_fn}

    def _check_group(self, group: dict[str, Any]) -> None:
        group["unbounded"] = group["lr"] is None
        if group["unbounded"]:
            group["lr"] = UNBOUNDED
        if "projection_fn" in group:
            raise TypeError(
                f"projection_fn is an argument of AliG alone, not of a group, where it could not be saved: {group['projection_fn']!r}."
            )
        check_number(group, "lr", tensor=True)
        check_number(group, "momentum", below=1.0)
        check_number(group, "eps")
        check_number(group, "max_norm", positive=True, optional=True)
        check_flag(group, "adjusted_momentum")
        if group["max_norm"] is not None and self.projection_fn is not None:
            raise ValueError(f"max_norm={group['max_norm']} and projection_fn were both given: give one of them.")
        first = self.param_groups[0]["max_norm"]
        if group["max_norm"] != first:
            raise ValueError(
                f"max_norm bounds all parameters together, but one group gives {first} and another {group['max_norm']}: "
                "give one value to the constructor."
            )

    def set_loss(self, loss: float | Tensor) -> None:
        """Hands over the loss that belongs to the gradients at hand, for the next `step` alone."""
        self._loss = as_scalar(loss)

    @property
    def skipped_steps(self) -> int:
        """How many steps were left out because the loss or the gradient was not finite. Reading it waits for the device."""
        return 0 if self._skipped is None else int(self._skipped)

    def _update(self, loss: Any) -> None:
        loss, self._loss = self._loss if loss is None else as_scalar(loss), None
        if loss is None:
            loss = self._without_loss()
        else:
            self._refuse_schedules()
        gathered = self._with_gradient()
        params = [p for _, params in gathered for p in params]
        if not params:
            return
        grads = [local_grad(p) for p in params]
        loss = loss.to(params[0].device)
        sq_norm = norms(params, grads).square().sum()
        usable = loss.isfinite() & sq_norm.isfinite()
        skipped = (~usable).float()
        self._skipped = skipped if self._skipped is None else self._skipped + skipped

        sizes = []
        for group, members in gathered:
            unclipped = torch.where(usable, loss / (sq_norm + group["eps"]), 0.0).nan_to_num(0.0).clamp(min=0.0)
            sizes.append((torch.clamp(unclipped, max=group["lr"]), unclipped))
            tensors = [[local(p) for p in members], [local_grad(p) for p in members]]
            if group["momentum"]:
                for p in members:
                    if not self.state[p]:
                        self.state[p]["momentum_buffer"] = zeros_like(p)
                tensors.append([local(self.state[p]["momentum_buffer"]) for p in members])
            for batch in batches(*tensors):
                alig(*batch, size=sizes[-1][0], skip=skipped, group=group)
        self.step_size, self.step_size_unclipped = sizes[0]
        self._project(usable)

    def _without_loss(self) -> Tensor:
        # torch.distributed.checkpoint takes a step with lr 0 to have the state made: that one needs no loss.
        if all(float(group["lr"]) == 0 for group in self.param_groups):
            return torch.tensor(0.0)
        raise RuntimeError(
            "AliG needs the loss of the gradients at hand, which makes the size of its step: pass a closure that returns it, "
            "step(lambda: loss), or call set_loss(loss) before step()."
        )

    def _refuse_schedules(self) -> None:
        for group in self.param_groups:
            if group["unbounded"] and group["lr"] != UNBOUNDED:
                raise RuntimeError(
                    f"This ALI-G is unbounded (lr=None), yet its lr was set to {group['lr']}, as by a scheduler: the step has "
                    "no bound to schedule. Construct AliG with a number as lr, the largest step, or leave the scheduler away."
                )

    @torch.no_grad()
    def _project(self, usable: Tensor) -> None:
        if self.projection_fn is not None:
            self.projection_fn()
        max_norm = self.param_groups[0]["max_norm"]
        if max_norm is None:
            return
        params = [p for group in self.param_groups for p in group["params"]]
        weights = [local(p) for p in params]
        total = torch.linalg.vector_norm(norms(params, weights))
        # What has just been scaled to the bound may exceed it by rounding, and shall stay as it is.
        outside = total > max_norm * (1 + 8 * torch.finfo(total.dtype).eps)
        factor = torch.where(usable.to(total.device) & outside, max_norm / total, 1.0)
        for w in weights:
            w.mul_(factor.to(w.device))


def as_scalar(loss: Any) -> Tensor:
    """A loss as a 0-dim tensor; raises `TypeError` or `ValueError` for what is not one number."""
    if isinstance(loss, DTensor):
        loss = loss.full_tensor()
    if isinstance(loss, Tensor):
        if loss.numel() != 1:
            raise ValueError(f"AliG needs one loss, but got a tensor of shape {tuple(loss.shape)}: reduce it first.")
        return loss.detach().reshape(())
    if isinstance(loss, bool) or not isinstance(loss, Real):
        raise TypeError(f"AliG needs the loss as a number or a tensor of one, not {loss!r} ({type(loss).__name__}).")
    return torch.tensor(float(loss), dtype=torch.float64)


def alig(
    weights: list[Tensor],
    grads: list[Tensor],
    *buffers: list[Tensor],
    size: Tensor,
    skip: Tensor,
    group: dict[str, Any],
) -> None:
    """One step of the length `size`, in place, unless `skip` is 1."""
    size, mu = size.to(weights[0]), group["momentum"]
    if not mu or group["adjusted_momentum"]:
        return sgd_step(weights, grads, *buffers or [[]], lr=size, momentum=mu, nesterov=bool(mu), skip=skip)
    steps = torch._foreach_mul(grads, size)
    sgd_step(weights, steps, *buffers, lr=1.0, momentum=mu, nesterov=True, skip=skip)
