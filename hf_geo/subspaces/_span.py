"""One tensor of a module as a combination of control points, by `torch.nn.utils.parametrize`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ._export import fold_when_exported


def combine(points: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """The weighted sum of the points, in one pass over memory for each point.

    Args:
        points: `num_points` tensors of one shape.
        weights: As many tensors of shape (), on the points' device, that sum to one.
    """
    if len(points) == 2 and points[0].dtype == weights[1].dtype:
        return torch.lerp(points[0], points[1], weights[1])  # one pass fewer
    combined = points[0] * weights[0]
    for point, weight in zip(points[1:], weights[1:], strict=True):
        combined = torch.addcmul(combined, point, weight)
    return combined.to(points[0].dtype)  # a parameter of shape () is promoted to the coefficients' dtype


class Combination(nn.Module):
    """The parametrization of a spanned tensor: its value at the current coefficients.

    `weights`, the coefficients, are plain attributes and no buffers: those would be broadcast from rank 0 by DDP, cast by
    `model.half()` and saved. They are new tensors for every position, so that a graph built at an earlier position still
    gets its own in backward, and tensors rather than numbers, so that `torch.compile` does not specialise on them.
    """

    def __init__(self, points: Sequence[Tensor], row: int) -> None:
        super().__init__()
        self._initial = tuple(points)
        self.row = row
        self.weights: tuple[Tensor, ...] = torch.zeros(len(points), dtype=torch.float64).unbind()

    def right_inverse(self, value: Tensor) -> tuple[Tensor, ...]:
        if not self._initial:
            raise RuntimeError(
                "A weight in a subspace has no single value that could be assigned: set its control points "
                "(parametrizations.<name>.original0, ...), or change the model before Subspace.attach."
            )
        points, self._initial = self._initial, ()
        return points

    def forward(self, *points: Tensor) -> Tensor:
        if hasattr(points[0], "full_tensor"):
            points = [_gathered_in_graph(point) for point in points]
        weights, device = self.weights, points[0].device
        if weights[0].device != device:  # the model has moved since the position was set
            weights = [weight.to(device) for weight in weights]
        return combine(points, weights)


def _gathered_in_graph(point: Tensor) -> Tensor:
    """The whole of a control point that is read while sharded, as by a tied layer of another FSDP2 group.

    Processes run on different samples, so its gradient is averaged over them, as FSDP2 averages the others.
    """
    from torch.distributed.tensor import Partial

    return point.full_tensor(grad_placements=[Partial("avg")] * point.device_mesh.ndim)


def gathered(value: Any) -> Any:
    """A tensor without its graph, gathered if it is sharded; anything else (an extra state) as it is."""
    if hasattr(value, "full_tensor"):
        value = value.full_tensor()
    return value.detach() if isinstance(value, Tensor) else value


class Tied(nn.Module):
    """The parametrization of a tensor that is another module's spanned tensor.

    It holds no parameters of its own, so the tie cannot come apart when the model is moved, sharded or loaded, and the
    state dict names the control points once.
    """

    def __init__(self, module: nn.Module, tensor_name: str) -> None:
        super().__init__()
        # In a tuple the owner is no submodule, and deepcopy still maps it to the copy's.
        self._owner = (module, tensor_name)

    def right_inverse(self, value: Tensor) -> tuple[Tensor, ...]:
        return ()

    def forward(self) -> Tensor:
        module, tensor_name = self._owner
        return getattr(module, tensor_name)


@dataclass
class Span:
    """One spanned tensor: the module that holds its control points, and the plain model's names for it."""

    module: nn.Module
    tensor_name: str
    names: list[str] = field(default_factory=list)

    @property
    def combination(self) -> Combination:
        return self._list[0]

    @property
    def first(self) -> nn.Parameter:
        return self._list.original0

    @property
    def points(self) -> list[nn.Parameter]:
        # Looked up each time: FSDP2 and `load_state_dict(assign=True)` replace the parameters.
        held = self._list
        return [getattr(held, f"original{i}") for i in range(held.ntensors)]

    @property
    def weights_dtype(self) -> torch.dtype:
        """The dtype of the coefficients: float32 beside half precision, as bfloat16 has no 0.3."""
        return torch.promote_types(self.first.real.dtype, torch.float32)

    def combined(self, weights: Sequence[Tensor]) -> Tensor:
        """The whole tensor at given coefficients, without a graph."""
        points = [gathered(point) for point in self.points]
        return combine(points, [weight.to(points[0].device, self.weights_dtype) for weight in weights])

    @property
    def _list(self) -> parametrize.ParametrizationList:
        return self.module.parametrizations[self.tensor_name]

    @property
    def point_names(self) -> list[str]:
        """The attached model's names of all control points, for every name of the tensor."""
        found = []
        for name in self.names:
            prefix, _, tensor_name = name.rpartition(".")
            path = f"{prefix}.parametrizations" if prefix else "parametrizations"
            found += [f"{path}.{tensor_name}.original{i}" for i in range(self._list.ntensors)]
        return found


def find_spans(model: nn.Module) -> list[Span]:
    """Finds the spanned tensors of an attached model, in order of their layers; a tied one once, with all its names."""
    spans: dict[tuple[int, str], Span] = {}
    ties: list[tuple[str, Tied]] = []
    for path, module in model.named_modules(remove_duplicate=False):
        for tensor_name, held in _own_parametrizations(module).items():
            name = f"{path}.{tensor_name}".lstrip(".")
            if isinstance(held[0], Combination):
                spans.setdefault((id(module), tensor_name), Span(module, tensor_name)).names.append(name)
            elif isinstance(held[0], Tied):
                ties.append((name, held[0]))
    for name, tied in ties:
        module, tensor_name = tied._owner
        spans[id(module), tensor_name].names.append(name)
    return list(spans.values())


def _own_parametrizations(module: nn.Module) -> Mapping[str, parametrize.ParametrizationList]:
    """A module's parametrizations, without those of a module inside it that it forwards unknown attributes to.

    `parametrize.is_parametrized` takes such a wrapper (PEFT's `ModulesToSaveWrapper`, a compiled module) for parametrized.
    """
    own = module._modules.get("parametrizations")
    return own if isinstance(own, nn.ModuleDict) else {}


def check_plain(model: nn.Module) -> None:
    """Raises `ValueError` if the model is attached to a subspace."""
    if any(isinstance(module, Combination) for module in model.modules()):
        raise ValueError("The model has a subspace already: attach one to a fresh copy of the plain model.")


@dataclass
class Holders:
    """One parameter of a plain model: its names, and the (module, attribute) places that hold it, the owner's first."""

    parameter: nn.Parameter
    names: list[str] = field(default_factory=list)
    places: list[tuple[nn.Module, str]] = field(default_factory=list)

    @property
    def padding_rows(self) -> list[int]:
        """Rows of an embedding that no gradient reaches, as they are for padding."""
        rows = [getattr(module, "padding_idx", None) for module, tensor_name in self.places if tensor_name == "weight"]
        return [row for row in rows if row is not None]


def find_holders(model: nn.Module) -> dict[nn.Parameter, Holders]:
    """Finds the parameters of a plain model, in order; a tied one once."""
    found: dict[nn.Parameter, Holders] = {}
    for path, module in model.named_modules():
        for tensor_name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            holders = found.setdefault(parameter, Holders(parameter))
            holders.names.append(f"{path}.{tensor_name}".lstrip("."))
            holders.places.append((module, tensor_name))
    return found


def add_points(holders: list[Holders], points: list[dict[str, Tensor]]) -> None:
    """Replaces every parameter of `holders` by its combination of `points` (dicts by the parameter's first name)."""
    classes = {module: type(module) for held in holders for module, _ in held.places}
    for module, cls in classes.items():
        if _own_parametrizations(module):
            # Its class, which gets a property below, may be shared with deep copies of the module.
            module.__class__ = type(cls.__name__, (cls,), {})
        else:
            # torch would add to the parametrizations of a module inside this one if it forwards attributes to that.
            module._modules["parametrizations"] = None
    rows: dict[int, int] = {}
    for held in holders:
        (module, tensor_name), *ties = held.places
        row = rows.setdefault(id(module), len(rows))
        combination = Combination([point[held.names[0]] for point in points], row)
        parametrize.register_parametrization(module, tensor_name, combination)
        for other, other_name in ties:
            parametrize.register_parametrization(other, other_name, Tied(module, tensor_name))
        for place, name in held.places:
            place.parametrizations[name].register_state_dict_post_hook(fold_when_exported)
    for module, cls in classes.items():
        # As transformers writes them into a configuration, and copies the source file of code that is not its own.
        for attribute in ("__name__", "__qualname__", "__module__"):
            setattr(type(module), attribute, getattr(cls, attribute))
