"""SGD-MRT: SGD whose momentum is carried along the sphere.

Roburin, de Mont-Marin, Bursuc, Marlet, Perez, Aubry: Spherical Perspective on Learning with Normalization Layers.
Neurocomputing 487 (2022), arXiv 2006.13382.
"""

from typing import Any

import torch
from torch import Tensor

from ._base import blocks, check_number
from ._fused import batches, sgd_step
from ._shards import local, local_grad, zeros_like
from ._spheres import Rows, SphericalOptimizer


class SGDMRT(SphericalOptimizer):
    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        channel_dims: list[int] | tuple[int, ...] | None = None,
        channel_wise: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "channel_dims": channel_dims, "channel_wise": channel_wise})

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_number(group, "lr", tensor=True)
        check_number(group, "momentum", below=1.0)
        check_number(group, "dampening")
        check_number(group, "weight_decay")

    def _update(self, loss: Any) -> None:
        for group, params in self._with_gradient():
            momentum = group["momentum"]
            tensors = [[local(p) for p in params], [local_grad(p) for p in params]]
            if momentum:
                for p in params:
                    if not self.state[p]:
                        self.state[p]["momentum_buffer"] = zeros_like(p)
                tensors.append([local(self.state[p]["momentum_buffer"]) for p in params])
            settings = {k: group[k] for k in ("lr", "momentum", "dampening", "weight_decay")}
            for weights, grads, *buffers in batches(*tensors):
                sgd_step(weights, grads, *buffers or [[]], **settings)
            for p in params if momentum else []:
                rows = Rows.of(p, self._channel_dims(group))
                if rows:
                    for x, b in blocks(rows.axis, local(p), local(self.state[p]["momentum_buffer"])):
                        transport(x, b, rows)


def transport(x: Tensor, b: Tensor, rows: Rows) -> None:
    sq = rows.norm(x).square_().clamp_min_(torch.finfo(x.dtype).tiny)
    b.addcmul_(x, rows.dot(b, x).div_(sq), value=-1)
