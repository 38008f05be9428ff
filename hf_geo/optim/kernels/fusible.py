"""Which parameters the fused kernels take, their tables, and the memory that keeps these from step to step."""

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .rows import Rows
from .shards import is_moved, local, local_grad, split_over

KEPT = 4  # lists of parameters a group
HAS_TRITON = importlib.util.find_spec("triton") is not None


def why_unfused(p: Tensor, rows: Rows | None) -> str | None:
    """Why the fused kernels cannot take a parameter with these rows (None: as a whole); None if they can."""
    if not HAS_TRITON:
        return "Triton is not installed"
    from .tables import NUMBERS, interpreted, memory_format

    weight = local(p)
    if not (weight.is_cpu if interpreted() else weight.is_cuda):
        return f"it is on the device {weight.device}"
    if type(weight) not in (Tensor, nn.Parameter):
        return f"it is a {type(weight).__name__}"
    if weight.dtype not in NUMBERS:
        return f"its dtype is {weight.dtype}"
    trailing = rows is None or rows.dims == tuple(range(weight.ndim - len(rows.dims), weight.ndim))
    by_row = rows is None or len(rows.dims) == weight.ndim - 1
    if not trailing or memory_format(weight, by_row) is None:
        return "its rows do not lie one after the other in memory"
    return None


def check_fusible(params: Sequence[Tensor]) -> None:
    """Raises `ValueError` if the fused kernels, which were asked for, cannot take a parameter."""
    for p in params:
        refuse(p, why_unfused(p, None))


def refuse(p: Tensor, reason: str | None) -> None:
    """Raises `ValueError` if there is a reason why the fused kernels cannot take `p`."""
    if reason:
        raise ValueError(
            f"fused=True was given, but a parameter of shape {tuple(p.shape)} cannot be updated by the fused kernels: "
            f"{reason}. Leave fused at None, which fuses what can be."
        )


def make_tables(
    fused: bool | None, params: Sequence[Tensor], rows: Mapping[Tensor, Rows] | None, normed: bool, orthogonal: bool
) -> tuple[list["FusedParams"], list[Tensor]]:
    """Tables of those of `params` that are to be updated by fused kernels, and the other parameters.

    Args:
        fused: The group's setting: None for those that can be, True to refuse if one cannot be.
        params: Parameters of a group.
        rows: The rows of each; without, each is a whole.
        normed: Whether the norm of a whole, over all its shards, is needed.
        orthogonal: Whether rows are to be drawn towards being orthogonal.

    Raises:
        ValueError: `fused` is True and the kernels cannot take a parameter.
    """
    members, others = defaultdict(list), []
    for p in params:
        reason = "it is on the CPU" if fused is None and not p.is_cuda else why_unfused(p, rows and rows[p])
        if fused:
            refuse(p, reason)
        if reason:
            others.append(p)
        else:
            groups = split_over(p) if normed else rows[p].groups if rows else ()
            members[(local(p).device, p.dtype, groups)].append((p, rows and rows[p]))
    return [FusedParams(pairs, key[-1], orthogonal) for key, pairs in members.items()], others


class FusedParams:
    """Parameters and their table, which stays; only the addresses in it are brought up to date at every step."""

    def __init__(self, members: list[tuple[Tensor, Rows | None]], groups: tuple[Any, ...], orthogonal: bool) -> None:
        from .tables import Table, memory_format

        self.params = [p for p, _ in members]
        self.sharded = any(isinstance(p, DTensor) for p in self.params)
        self.states: list[dict[str, Tensor]] = []
        self.made = -1
        sizes, formats = [], []
        for p, rows in members:
            weight = local(p)
            axes = 0 if rows is None else weight.ndim - len(rows.dims)
            sizes.append((prod(weight.shape[:axes]), prod(weight.shape[axes:]), rows.size if rows else p.numel()))
            formats.append(memory_format(weight, True))
        self.has_channels_last = set(formats) != {torch.contiguous_format}
        weights = [local(p) for p in self.params]
        self.shapes = [w.shape for w in weights]
        with torch.device("cpu"):  # whatever the user's default is
            self.table = Table(weights, sizes, formats, members[0][1] is None or bool(groups), groups, orthogonal)

    def refresh(
        self,
        state: Mapping[Tensor, dict[str, Tensor]],
        keys: Sequence[str | None],
        gradients: Callable[[Tensor], Tensor],
        made: int,
    ) -> bool:
        """Points the table to the tensors as they are now; returns whether it still suits the weights.

        Args:
            state: The optimizer's state.
            keys, gradients: As in `GeometricOptimizer._fuse`.
            made: How often state has been made so far.
        """
        table = self.table
        weights, grads, own = self.params, [p.grad for p in self.params], []
        if self.sharded or gradients is not local_grad:
            weights, grads = [local(p) for p in self.params], [gradients(p) for p in self.params]
            own = [g for p, g in zip(self.params, grads, strict=True) if gradients is not local_grad or is_moved(p)]
        plain = [type(g) is Tensor and g.dtype is table.dtype and g.is_contiguous() for g in grads]
        if self.has_channels_last or not all(plain):
            for i, (g, layout) in enumerate(zip(grads, table.formats, strict=True)):
                if not self._fits(g, layout):
                    grads[i] = torch.empty_like(weights[i]).copy_(g)
                    own.append(grads[i])
        table.own = own
        columns: list[Any] = [weights, grads, None, None]
        if table.matrices:
            regularized, products = table.make_room()
            columns = [weights, regularized, grads, products]
        if any(keys) and (made != self.made or state[self.params[0]] is not self.states[0]):
            self.states, self.made = [state[p] for p in self.params], made
        addresses = [t.data_ptr() for column in (*columns, *self._state_columns(keys)) if column for t in column]
        if addresses != table.addresses:
            expected = zip(weights, self.shapes, table.formats, strict=True)
            if not all(w.shape == s and w.device == table.device and self._fits(w, f) for w, s, f in expected):
                return False
            self._lay_out(keys)
            with torch.device("cpu"):
                table.point_to([*columns, *self._state_columns(keys)])
            table.addresses = addresses
        table.keep_for_graph()
        return True

    def _fits(self, tensor: Tensor, layout: torch.memory_format) -> bool:
        """Whether a kernel can read a tensor by its address; of subclasses it cannot be known."""
        is_known = type(tensor) in (Tensor, nn.Parameter)
        return is_known and tensor.dtype is self.table.dtype and tensor.is_contiguous(memory_format=layout)

    def _state_columns(self, keys: Sequence[str | None]) -> list[list[Tensor] | None]:
        """The local tensors of the state under each key."""
        columns = [key and [entry[key] for entry in self.states] for key in keys]
        return [column and [local(tensor) for tensor in column] for column in columns] if self.sharded else columns

    def _lay_out(self, keys: Sequence[str | None]) -> None:
        """Gives state the device, dtype and memory layout that the kernels read, which it may have lost in a checkpoint."""
        for p, entry, layout in zip(self.params, self.states, self.table.formats, strict=False):
            for key in filter(None, keys):
                value, dtype = entry[key], torch.float32 if key == "step" else self.table.wide
                if value.dtype is not dtype or value.device != p.device:
                    value = value.to(p.device, dtype)
                if value.shape == p.shape and not local(value).is_contiguous(memory_format=layout):
                    value = torch.empty_like(p, dtype=dtype).copy_(value)
                entry[key] = value


class Memory:
    """What an optimizer has found out about lists of parameters, to be looked up in its next steps."""

    def __init__(self) -> None:
        self.lists: dict[tuple[int, ...], list[Tensor]] = {}
        self.found: dict[tuple[Any, int], tuple[Any, Any]] = {}
        self.made = 0  # how often state has been made

    def same_list(self, params: list[Tensor], groups: int) -> list[Tensor]:
        """The first list of the same parameters that was met.

        Everything is forgotten when there are more lists than an optimizer of so many groups needs, as in networks whose
        parameters take turns.
        """
        if torch.compiler.is_compiling():
            return params
        ids = tuple(map(id, params))
        if ids not in self.lists and len(self.lists) >= KEPT * (groups + 1):
            self.lists.clear()
            self.found.clear()
        return self.lists.setdefault(ids, params)

    def remember(self, key: Any, params: Sequence[Tensor], make: Callable[[], Any]) -> Any:
        """What `make` returns, made once for each key and list of parameters."""
        if torch.compiler.is_compiling():
            return make()
        full_key = (key, id(params))
        if full_key not in self.found:
            self.found[full_key] = (params, make())  # the list lives on, or another might get its id
        return self.found[full_key][1]
