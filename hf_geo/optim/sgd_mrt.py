"""SGD-MRT: SGD with momentum that stays tangent to the spheres of scale-invariant weights.

Roburin, de Mont-Marin, Bursuc, Marlet, Perez, Aubry: Spherical Perspective on Learning with Normalization Layers.
Neurocomputing 487 (2022), arXiv 2006.13382.
"""

from typing import Any

from torch import Tensor

from ._base import check_number
from ._spheres import SphericalOptimizer
from .kernels.blocks import blocks
from .kernels.fused import kernel_ready, sgd_step
from .kernels.rows import SMALLEST_NORM
from .kernels.shards import zeros_like


class SGDMRT(SphericalOptimizer):
    """SGD-MRT: SGD with momentum whose momentum is carried along the sphere of each group of weights.

    For each group x of weights that `channel_dims` indexes, with gradient g (weight decay included)

        b <- momentum * b + (1 - dampening) * g
        x' <- x - lr * b
        b <- ((x.x') b - (b.x') x) / |x'|^2

    The last line transports the momentum from x to x' and removes its radial part. Since x' differs from x by a multiple
    of b it equals b - (b.x') / |x'|^2 x', the momentum's projection at x', which is how it is computed. Groups of one
    weight, and parameters without `channel_dims`, take SGD's step.

    Args:
        params: Parameters, or groups of them.
        lr: Learning rate; a number or a tensor of one; the default is that of `torch.optim.SGD`.
        momentum: In [0, 1).
        dampening: As in torch, but of the first gradient too, as in the authors' code.
        weight_decay: Added to the gradient as `weight_decay * x`.
        channel_dims: The axes that index independent groups: `[0]` for the filters before a BatchNorm, `[]` for a whole
            tensor before a LayerNorm, None for plain SGD.
        channel_wise: True is `channel_dims=[0]`.
        fused: As in `Fromage`.

    Raises:
        TypeError: A setting is not of its kind.
        ValueError: A setting is out of its range; `channel_dims` names an axis that a parameter lacks, or one twice.

    Differs from the authors' code: gradients stay as they are; `step` takes a closure.

    Example:
        >>> groups = [{"params": convolutions, "channel_wise": True}, {"params": rest}]
        >>> optimizer = SGDMRT(groups, lr=0.1, momentum=0.9)
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        channel_dims: list[int] | tuple[int, ...] | None = None,
        channel_wise: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(
            params, {**defaults, "channel_dims": channel_dims, "channel_wise": channel_wise, "fused": fused}
        )

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_number(group, "lr", tensor=True)
        check_number(group, "momentum", below=1.0)
        check_number(group, "dampening")
        check_number(group, "weight_decay")

    def _update(self, loss: Any) -> None:
        for group, params in self._groups_with_gradient():
            keys = ("momentum_buffer",) if group["momentum"] else ()
            self._ensure_state(params, **dict.fromkeys(keys, zeros_like))
            flat, spherical, rows_of = self._split_by_geometry(group, params) if keys else (params, [], {})
            self._step_sgd(group, flat, keys)
            settings = {key: group[key] for key in ("lr", "momentum", "dampening", "weight_decay")}
            tables, others = self._fuse(group, spherical, keys, rows=rows_of)
            for table in tables:
                numbers = settings["momentum"], 1 - settings["dampening"], settings["weight_decay"]
                table.step("sgd_mrt", group["lr"], numbers, has_m=True)
            for p in others:
                rows = rows_of[p]
                for x, g, b in blocks(rows.axis, *(tensor for (tensor,) in self._local_tensors([p], *keys))):
                    for lists in kernel_ready([x], [g], [b]):
                        sgd_step(*lists, **settings)
                    # b <- b - (b.x') / |x'|^2 x'
                    b.copy_(rows.project(b, x, rows.norm(x).clamp_min_(SMALLEST_NORM)))
