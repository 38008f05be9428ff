"""The base of all optimizers: checked settings, refusals, the closure rule, blocks, and state that stays float32."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from .kernels.blocks import batches
from .kernels.fused import kernel_ready, sgd_step
from .kernels.fusible import Memory, check_fusible, make_tables
from .kernels.rows import Rows
from .kernels.shards import check_placements, local, local_grad, wide_dtype


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


class GeometricOptimizer(Optimizer):
    """Base of the optimizers of this package: a subclass checks its settings and updates the parameters.

    All settings live in `param_groups`, so each may be given for a group alone. State is made at a parameter's first
    step with a gradient, so parameters may be added or exchanged before; it is float32 for half-precision parameters,
    also after `load_state_dict`.
    """

    later_settings: ClassVar[Mapping[str, Any]] = {"fused": None}  # what states of earlier versions stand for

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self._memory = Memory()
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._memory = Memory()
        for group in self.param_groups:
            group.update({**self.later_settings, **group})

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
            if group["fused"] is not None:
                check_flag(group, "fused")
            if group["fused"]:
                check_fusible(group["params"])
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
            RuntimeError: A gradient is sparse, another engine has flattened the parameters, or a parameter is distributed
                in a way that is not supported.
            ValueError: `fused` is True, and the kernels cannot take a parameter as it is now.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update(loss)
        return loss

    def _groups_with_gradient(self) -> list[tuple[dict[str, Any], list[Tensor]]]:
        """Every group, its `lr` a number or of shape (), with its parameters that have a gradient.

        The list of parameters is the same object as long as they are the same.
        """
        groups = []
        for group in self.param_groups:
            params = self._memory.same_list([p for p in group["params"] if p.grad is not None], len(self.param_groups))
            self._memory.remember(
                "usable", params, lambda group=group, params=params: self._check_usable(group, params)
            )
            for p in params:
                if p.grad.layout is not torch.strided:
                    raise RuntimeError(
                        f"{type(self).__name__} takes no sparse gradients, but a parameter of shape {tuple(p.shape)} has one: "
                        "make the gradient dense (sparse=False in an embedding), or train that parameter with another optimizer."
                    )
            if isinstance(group["lr"], Tensor) and group["lr"].ndim:
                group = {**group, "lr": group["lr"].reshape(())}
            groups.append((group, params))
        return groups

    def _check_usable(self, group: dict[str, Any], params: Sequence[Tensor]) -> None:
        """Raises for parameters that cannot be updated, or not by fused kernels if these were asked for."""
        for p in params:
            check_placements(p)
            # FSDP1 marks flattened parameters, also with use_orig_params; ZeRO-3 gives parameters an id.
            if getattr(p, "_fsdp_flattened", False) or hasattr(p, "ds_id"):
                raise RuntimeError(
                    f"{type(self).__name__} needs to know which weights form a tensor, but a parameter of shape "
                    f"{tuple(p.shape)} was flattened by FSDP1 or DeepSpeed ZeRO: use FSDP2 "
                    "(torch.distributed.fsdp.fully_shard) or DDP."
                )
        if group["fused"]:
            check_fusible(params)

    def _ensure_state(self, params: list[Tensor], **makers: Callable[[Tensor], Tensor]) -> None:
        """Creates the state that `params` lack."""
        # Looked up in every step, unless as many parameters have state as when these were given theirs.
        complete = self._memory.remember(tuple(makers), params, lambda: [0])
        if complete[0] and complete[0] == len(self.state):
            return
        for p in params:
            state = self.state[p]
            for key, make in makers.items():
                if key not in state:
                    state[key] = make(p)
        complete[0] = len(self.state)
        self._memory.made += 1

    def _fuse(
        self,
        group: dict[str, Any],
        params: Sequence[Tensor],
        keys: Sequence[str | None],
        *,
        rows: Mapping[Tensor, Rows] | None = None,
        normed: bool = False,
        orthogonal: bool = False,
        gradients: Callable[[Tensor], Tensor] = local_grad,
    ) -> tuple[list[Any], list[Tensor]]:
        """The tables of those of `params` that fused kernels update, up to date, and the other parameters.

        Args:
            group: Their group.
            params: Parameters with gradients.
            keys: The state's names of the momentum, the second moment and the step count; None for one that there is not.
            rows, normed, orthogonal: As in `make_tables`.
            gradients: The gradient of a local shard.
        """
        if group["fused"] is False or not params or torch.compiler.is_compiling():
            return [], list(params)
        place = params[0].device, params[0].dtype  # a model may be moved as a whole
        key = (group["fused"], normed, orthogonal, rows is None, gradients is local_grad, *keys, *place)
        found, others = self._memory.remember(
            key, params, lambda: make_tables(group["fused"], params, rows, normed, orthogonal)
        )
        if not all(entry.refresh(self.state, keys, gradients, self._memory.made) for entry in found):
            self._memory = Memory()
            return self._fuse(group, params, keys, rows=rows, normed=normed, orthogonal=orthogonal, gradients=gradients)
        return [entry.table for entry in found], others

    def _local_tensors(self, params: list[Tensor], *keys: str) -> list[list[Tensor]]:
        """The local shards of `params`, of their gradients, and of their state under each of `keys`."""
        states = [self.state[p] for p in params] if keys else []
        columns = ([local(state[key]) for state in states] for key in keys)
        return [[local(p) for p in params], [local_grad(p) for p in params], *columns]

    def _step_sgd(self, group: dict[str, Any], params: list[Tensor], keys: Sequence[str]) -> None:
        """Takes a step of `torch.optim.SGD`; `keys` names the momentum in the state, if there is one."""
        settings = {key: group.get(key, False) for key in ("lr", "momentum", "dampening", "weight_decay", "nesterov")}
        tables, others = self._fuse(group, params, keys)
        for table in tables:
            table.sgd(**settings)
        for batch in batches(others):
            for weights, grads, *buffers in kernel_ready(*self._local_tensors(batch, *keys)):
                sgd_step(weights, grads, *buffers or [[]], **settings)

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
