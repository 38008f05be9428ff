"""Fromage: every tensor moves by a fixed fraction of its own norm.

Bernstein, Vahdat, Yue, Liu: On the distance between two neural networks and the stability of learning. NeurIPS 2020,
arXiv 2002.03432.
"""

import logging
from typing import Any

import torch
from torch import Tensor

from ._base import GeometricOptimizer, check_number
from .kernels.blocks import batches, blocks
from .kernels.fused import kernel_ready
from .kernels.shards import local, norms

logger = logging.getLogger(__name__)

NEAR_ZERO = 1e-5  # root mean square below which a tensor starts so near zero that it barely moves
SHOWN = 3  # names in a warning


class Fromage(GeometricOptimizer):
    """Fromage: every tensor moves by a fixed fraction of its own norm.

    For each tensor w with gradient g

        w <- (w - lr * |w| / |g| * g) / sqrt(1 + lr^2)

    and, when `p_bound` is given, w is scaled back to the norm `p_bound` times its initial norm if it has outgrown it.
    The step does not depend on the gradient's scale, and the division keeps a gradient that is orthogonal to w from
    making it grow. The same `lr`, 0.01, suits very different networks; lower it in time as usual.

    A tensor of norm zero, or one whose gradient is zero, takes the plain step w - lr * g instead (also divided), so that a
    bias that starts at zero can move. With `p_bound` it stays zero, as its bound is zero: leave `p_bound` away for biases
    and normalization shifts that should move. A matrix that starts at zero, such as LoRA's B, moves by fractions of its
    tiny norm, that is barely. A warning at construction names both.

    Args:
        params: Parameters, or groups of them.
        lr: The fraction; a number or a tensor of one.
        p_bound: Largest norm of a tensor, as a multiple of its norm before its first step, which is kept in the state
            ("initial_norm"); None for no bound.
        fused: Whether Triton kernels take the step, in a few launches for all parameters. None: on a GPU, for those whose
            rows lie one after the other in memory. True refuses what the kernels cannot take, False never uses them.

    Raises:
        TypeError: A setting is not a number.
        ValueError: `lr` is negative, or `p_bound` not positive.

    Differs from the authors' code: `p_bound` is a setting of the group and saved with the initial norms, so a resumed
    run keeps its bounds; norms are those of whole tensors under FSDP2; nothing waits for the device.

    Example:
        >>> optimizer = Fromage(model.parameters(), lr=0.01)
    """

    def __init__(
        self, params: Any, lr: float | Tensor = 0.01, p_bound: float | None = None, fused: bool | None = None
    ) -> None:
        super().__init__(params, {"lr": lr, "p_bound": p_bound, "fused": fused})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, and warns of tensors in it that will not move."""
        super().add_param_group(param_group)
        warn_of_zeros(self.param_groups[-1])

    def _check_group(self, group: dict[str, Any]) -> None:
        check_number(group, "lr", tensor=True)
        check_number(group, "p_bound", positive=True, optional=True)

    def _update(self, loss: Any) -> None:
        for group, params in self._groups_with_gradient():
            bound = group["p_bound"]
            if bound is not None:
                self._ensure_state(params, initial_norm=lambda p: norms([p], [local(p)])[0].clone())
            keys = (None, "initial_norm") if bound is not None else ()
            tables, others = self._fuse(group, params, keys, normed=True)
            for table in tables:
                table.step("fromage", group["lr"], [bound or 0.0], has_m=False, has_v=bound is not None)
            for batch in batches(others):
                weights, grads = self._local_tensors(batch)
                weight_norms = norms(batch, weights)
                fromage(weights, grads, weight_norms, norms(batch, grads), group["lr"])
                if bound is not None:
                    bounds = bound * torch.stack([self.state[p]["initial_norm"] for p in batch])
                    shrink(weights, norms(batch, weights), bounds)


@torch.no_grad()
def warn_of_zeros(group: dict[str, Any]) -> None:
    """Warns of the tensors of a new group that start so near zero that the method leaves them there."""
    bound, params = group["p_bound"], group["params"]
    names = group.get("param_names") or [f"a tensor of shape {tuple(p.shape)}" for p in params]
    name_of = {p: name for p, name in zip(params, names, strict=True) if bound is not None or p.ndim > 1}
    stuck = []
    for batch in batches([p for p in name_of if p.numel() and not p.is_meta]):
        sizes = norms(batch, [local(p) for p in batch]).tolist()
        stuck += [name_of[p] for p, size in zip(batch, sizes, strict=True) if size < NEAR_ZERO * p.numel() ** 0.5]
    if not stuck:
        return
    listed = ", ".join(stuck[:SHOWN]) + (f" and {len(stuck) - SHOWN} more" if len(stuck) > SHOWN else "")
    if bound is None:
        logger.warning(
            "Fromage moves a tensor by a fraction of its own norm, so these weights, which start at or near zero, will barely "
            'move: %s. Start them elsewhere (with LoRA in PEFT, init_lora_weights="pissa"), or choose another optimizer.',
            listed,
        )
    else:
        logger.warning(
            "Fromage's p_bound=%s is a multiple of a tensor's first norm, so these tensors, which start at or near zero, will "
            "stay there: %s. Leave p_bound away if they are to move.",
            bound,
            listed,
        )


def fromage(
    weights: list[Tensor], grads: list[Tensor], weight_norms: Tensor, grad_norms: Tensor, lr: float | Tensor
) -> None:
    """Moves each weight along its gradient, given the norms of both, in place."""
    keep = (1 + lr * lr) ** -0.5
    moving = (weight_norms > 0) & (grad_norms > 0)
    coefficients = torch.where(moving, weight_norms / grad_norms, 1.0) * (lr * keep)
    if not weights[0].is_cpu and not torch.compiler.is_compiling():
        for lists in kernel_ready(weights, grads):
            move_at_once(*lists, coefficients, keep)
        return
    for w, g, c in zip(weights, grads, coefficients.unbind(), strict=True):
        for x, h in blocks(None, w, g):
            if isinstance(keep, float) and x.is_contiguous() and h.is_contiguous():
                # As a column plus an outer product: the only operation that does both in one pass over the memory.
                x.view(-1, 1).addr_(h.view(-1), c.view(1), beta=keep, alpha=-1)
            else:
                x.mul_(keep).addcmul_(h, c, value=-1)


def move_at_once(weights: list[Tensor], grads: list[Tensor], coefficients: Tensor, keep: float | Tensor) -> None:
    """Sets each weight to `keep` times itself minus its coefficient times its gradient, in three operations for all."""
    torch._foreach_mul_(weights, keep)
    torch._foreach_sub_(weights, torch._foreach_mul(grads, coefficients.unbind()))


def shrink(weights: list[Tensor], weight_norms: Tensor, bounds: Tensor) -> None:
    """Scales each weight whose norm exceeds its bound back to the bound."""
    factors = torch.where(weight_norms > bounds, bounds / weight_norms, 1.0)
    torch._foreach_mul_(weights, factors.unbind())
