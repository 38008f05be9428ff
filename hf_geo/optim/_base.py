"""What all optimizers here share: checked settings, refusals, the closure rule, shards, and state that stays wide."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


def check_number(
    name: str, value: Any, *, low: float = 0.0, below: float = math.inf, tensor: bool = False, optional: bool = False
) -> None:
    """Raises unless `value` is a number in [low, below), a 0-dim tensor of one where `tensor`, or None where `optional`."""
    if optional and value is None:
        return
    if isinstance(value, Tensor) and tensor:
        if value.ndim:
            raise ValueError(f"{name} has to be a number or a 0-dim tensor, but its shape is {tuple(value.shape)}.")
    elif isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} has to be a number, not {value!r} ({type(value).__name__}).")
    if not low <= value < below:
        upper = "finite" if math.isinf(below) else f"below {below}"
        raise ValueError(f"{name} has to be at least {low} and {upper}, but it is {value}.")


def check_flag(name: str, value: Any) -> None:
    """Raises unless `value` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} has to be True or False, not {value!r}.")


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """What `tensor` is computed in, and its state kept in: float32 for half precision, else its own."""
    return torch.promote_types(tensor.dtype, torch.float32)


def local(tensor: Tensor) -> Tensor:
    """The part of `tensor` that this process holds, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_grad(param: Tensor) -> Tensor:
    """The part of the gradient of `param` that belongs to `local(param)`."""
    grad = param.grad
    if isinstance(param, DTensor) and grad.placements != param.placements:
        grad = grad.redistribute(param.device_mesh, param.placements)
    return local(grad)


class GeometricOptimizer(Optimizer):
    """Base of the optimizers of this package; a subclass says what its settings are and how a step is made.

    All settings live in `param_groups`, where each may also be given for a group alone, and state is made at the first
    step with a gradient, so parameters may be swapped or added before. State is kept in float32 for half-precision
    parameters, also after `load_state_dict`.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; settings it does not give are the constructor's.

        Raises:
            TypeError: A setting or a parameter of the wrong kind.
            ValueError: A bad value, or the same parameter twice.
        """
        group = self._completed(dict(param_group))
        if not isinstance(group["params"], Tensor | set):
            group["params"] = list(group["params"])
            ids = [id(p[1] if isinstance(p, tuple) else p) for p in group["params"]]
            if len(set(ids)) < len(ids):
                raise ValueError("A parameter is listed twice in one group: list every parameter once.")
        super().add_param_group(group)
        try:
            self._check_group(group)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def _completed(self, group: dict[str, Any]) -> dict[str, Any]:
        """`group` with defaults that depend on what else it gives."""
        return group

    @abstractmethod
    def _check_group(self, group: dict[str, Any]) -> None:
        """Raises `TypeError` or `ValueError` for settings that cannot be used."""

    @abstractmethod
    def _update(self, loss: Any) -> None:
        """Steps all parameters; `loss` is what the closure returned, or None."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step.

        Args:
            closure: Called first, with gradients enabled.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: A gradient that is sparse or complex, or a parameter that another engine has flattened.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update(loss)
        return loss

    def _with_gradient(self, group: dict[str, Any]) -> list[Tensor]:
        """The parameters of `group` that have a gradient."""
        params = [p for p in group["params"] if p.grad is not None]
        for p in params:
            if p.grad.layout is not torch.strided or p.grad.is_complex():
                kind = "complex" if p.grad.is_complex() else "sparse"
                raise RuntimeError(
                    f"{type(self).__name__} takes no {kind} gradients, but a parameter of shape {tuple(p.shape)} has one: "
                    "train that parameter with another optimizer."
                )
            if p not in self.state and (getattr(p, "_fsdp_flattened", False) or hasattr(p, "ds_id")):
                raise RuntimeError(
                    f"{type(self).__name__} needs whole tensors, but a parameter was flattened (FSDP1 or DeepSpeed ZeRO): "
                    "use FSDP2 (torch.distributed.fsdp.fully_shard) or DDP."
                )
        return params

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in `torch.optim.Optimizer`, except that float32 state stays float32 for half-precision parameters."""
        seen = []
        handle = self.register_load_state_dict_pre_hook(lambda _, saved: seen.append(saved))
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        saved_ids = (i for group in seen[-1]["param_groups"] for i in group["params"])
        params = (p for group in self.param_groups for p in group["params"])
        for i, p in zip(saved_ids, params, strict=True):
            for key, value in seen[-1]["state"].get(i, {}).items():
                if isinstance(value, Tensor) and key != "step" and value.is_floating_point():
                    self.state[p][key] = value.to(p.device, wide_dtype(p), copy=True)


def bias_corrections(steps: list[Tensor], *betas: float) -> Iterator[tuple[Tensor, ...]]:
    """For every step count k, `1 - beta ** k` for each beta (0-dim tensors, float64 on the counts' device)."""
    counts = torch.stack(steps).double()
    return zip(*((1 - beta**counts).unbind() for beta in betas), strict=True)


def like_locally(param: Tensor, local_value: Tensor, shape: Iterable[int], placements: Any) -> Tensor:
    """State of shape `shape` for `param`, of which `local_value` is this process's part."""
    if not isinstance(param, DTensor):
        return local_value
    shape = torch.Size(shape)
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(local_value, param.device_mesh, placements, run_check=False, shape=shape, stride=stride)
