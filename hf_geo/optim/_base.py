"""The base of all optimizers: checked settings, refusals, the closure rule, blocks, and state that stays float32."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .kernels.shards import check_placements, local, local_grad, wide_dtype

# Number of elements that are updated together: few enough to stay in the cache from one operation to the next and to
# keep temporaries small, and enough for many small tensors to share a call.
BLOCK = 1 << 20


def check_number(
    group: dict[str, Any],
    name: str,
    *,
    below: float = math.inf,
    positive: bool = False,
    optional: bool = False,
    tensor: bool = False,
) -> None:
    """Makes `group[name]` a float; raises `TypeError` or `ValueError` unless it is a number in [0, below).

    Args:
        group: A parameter group.
        name: The setting.
        below: The upper bound, exclusive.
        positive: Whether zero is refused as well.
        optional: Whether None is allowed.
        tensor: Whether a tensor of one element is allowed, which is then kept as it is.
    """
    value = group[name]
    if optional and value is None:
        return
    is_tensor = tensor and isinstance(value, Tensor)
    if is_tensor and value.numel() != 1:
        raise ValueError(f"{name} has to be a number or a tensor of one element, not of shape {tuple(value.shape)}.")
    if not is_tensor and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"{name} has to be a number{' or None' if optional else ''}, not {value!r}.")
    if not 0 <= value < below or (positive and value == 0):
        floor, top = "above 0" if positive else "at least 0", "finite" if math.isinf(below) else f"below {below:g}"
        raise ValueError(f"{name} has to be {floor} and {top}, not {value}.")
    group[name] = value if is_tensor else float(value)


def check_flag(group: dict[str, Any], name: str) -> None:
    """Raises unless `group[name]` is True or False."""
    if not isinstance(group[name], bool):
        raise TypeError(f"{name} has to be True or False, not {group[name]!r}.")


def batches(params: list[Tensor]) -> Iterator[list[Tensor]]:
    """Cuts a list into batches of one device and dtype, in the same way on all processes."""
    batch: list[Tensor] = []
    size = 0
    for p in params:
        if batch and (size + p.numel() > BLOCK or p.device != batch[0].device or p.dtype != batch[0].dtype):
            yield batch
            batch, size = [], 0
        batch.append(p)
        size += p.numel()
    if batch:
        yield batch


def blocks(axis: int | None, x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cuts a parameter, its gradient and state alike along `axis` (None: not at all) into blocks to be updated in place.

    On a GPU, or under `torch.compile`, there is one block. Blocks are float32 or wider; those of a half-precision
    parameter are rounded back after their update.
    """
    tensors = (x, *others)
    pieces = iter((tensors,))
    if axis is not None and x.numel() > BLOCK and x.is_cpu and not torch.compiler.is_compiling():
        count = max(1, BLOCK * x.shape[axis] // x.numel())
        pieces = zip(*(t.split(count, axis) for t in tensors), strict=True)
    dtype = wide_dtype(x)
    if all(t.dtype is dtype for t in tensors):
        yield from pieces
        return
    for piece in pieces:
        wide = tuple(t.to(dtype) for t in piece)
        yield wide
        if wide[0] is not piece[0]:
            piece[0].copy_(wide[0])


class GeometricOptimizer(Optimizer):
    """Base of the optimizers of this package: a subclass checks its settings and updates the parameters.

    All settings live in `param_groups`, so each may be given for a group alone. State is made at a parameter's first
    step with a gradient, so parameters may be added or exchanged before; it is float32 for half-precision parameters,
    also after `load_state_dict`.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; the settings it does not give are the constructor's.

        Raises:
            TypeError: A setting, or a parameter, of the wrong kind.
            ValueError: A bad value, or the same parameter twice.
        """
        group = self._with_implied_settings(dict(param_group))
        if not isinstance(group["params"], Tensor | set):
            group["params"] = list(group["params"])
            ids = [id(p[1] if isinstance(p, tuple) else p) for p in group["params"]]
            if len(set(ids)) < len(ids):
                raise ValueError("A parameter is listed twice in one group: list every parameter once.")
        super().add_param_group(group)
        try:
            for p in group["params"]:
                if not p.is_floating_point():
                    kind = "complex" if p.is_complex() else str(p.dtype)
                    raise TypeError(
                        f"{type(self).__name__} takes floating-point parameters, but one is {kind}: leave it out."
                    )
            self._check_group(group)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def _with_implied_settings(self, group: dict[str, Any]) -> dict[str, Any]:
        """The group with the settings that follow from those it gives."""
        return group

    @abstractmethod
    def _check_group(self, group: dict[str, Any]) -> None:
        """Brings settings into their final form; raises `TypeError` or `ValueError` for those that cannot be used."""

    @abstractmethod
    def _update(self, loss: Any) -> None:
        """Updates all parameters. `loss` is the closure's return value, or None."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step.

        Args:
            closure: Called first, with gradients enabled.

        Returns:
            The closure's return value, or None.

        Raises:
            RuntimeError: A gradient is sparse or complex, another engine has flattened the parameters, or a parameter is
                distributed in a way that is not supported.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update(loss)
        return loss

    def _groups_with_gradient(self) -> list[tuple[dict[str, Any], list[Tensor]]]:
        """Every group, its `lr` a number or of shape (), with its parameters that have a gradient."""
        groups = []
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if p.grad.layout is not torch.strided or p.grad.is_complex() or p not in self.state:
                    self._refuse_unusable(p)
            if isinstance(group["lr"], Tensor) and group["lr"].ndim:
                group = {**group, "lr": group["lr"].reshape(())}
            groups.append((group, params))
        return groups

    def _refuse_unusable(self, p: Tensor) -> None:
        name, shape = type(self).__name__, tuple(p.shape)
        if p.grad.layout is not torch.strided or p.grad.is_complex():
            kind = "complex" if p.grad.is_complex() else "sparse"
            raise RuntimeError(
                f"{name} takes no {kind} gradients, but a parameter of shape {shape} has one: make the gradient dense "
                "(sparse=False in an embedding), or train that parameter with another optimizer."
            )
        # FSDP1 marks flattened parameters, also with use_orig_params; ZeRO-3 gives parameters an id.
        if getattr(p, "_fsdp_flattened", False) or hasattr(p, "ds_id"):
            raise RuntimeError(
                f"{name} needs to know which weights form a tensor, but a parameter of shape {shape} was flattened by FSDP1 "
                "or DeepSpeed ZeRO: use FSDP2 (torch.distributed.fsdp.fully_shard) or DDP."
            )
        check_placements(p)

    def _ensure_state(self, params: list[Tensor], **makers: Callable[[Tensor], Tensor]) -> None:
        """Creates the state that `params` lack."""
        for p in params:
            state = self.state[p]
            for key, make in makers.items():
                if key not in state:
                    state[key] = make(p)

    def _local_tensors(self, params: list[Tensor], *keys: str) -> list[list[Tensor]]:
        """The local shards of `params`, of their gradients, and of their state under each of `keys`."""
        states = [self.state[p] for p in params] if keys else []
        columns = ([local(state[key]) for state in states] for key in keys)
        return [[local(p) for p in params], [local_grad(p) for p in params], *columns]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads as `torch.optim.Optimizer` does, but the state of half-precision parameters stays float32.

        State that was saved as Python numbers, as older formats hold the step count, becomes tensors.
        """
        loaded = []
        handle = self.register_load_state_dict_pre_hook(lambda _, final: loaded.append(final))
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        keys = (key for group in loaded[0]["param_groups"] for key in group["params"])
        params = (p for group in self.param_groups for p in group["params"])
        for key, p in zip(keys, params, strict=True):
            for name, value in loaded[0]["state"].get(key, {}).items():
                dtype = torch.float32 if name == "step" else wide_dtype(p)
                if isinstance(value, Real):
                    self.state[p][name] = torch.tensor(value, device=p.device, dtype=dtype)
                elif self.state[p][name].dtype != dtype or self.state[p][name].device != p.device:
                    self.state[p][name] = value.to(device=p.device, dtype=dtype, copy=True)
