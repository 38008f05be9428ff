"""A subspace between a model and its files: collected from one model, and put into another of the same architecture."""

import dataclasses
from collections.abc import Mapping, Sequence
from os import PathLike

import torch
from torch import Tensor, nn

from . import _files
from ._span import Span, add_points, find_holders, gathered
from ._state import find_module, plain_name, plain_state_dict, tensors_of
from .config import SubspaceConfig


@dataclasses.dataclass(frozen=True)
class SavedSubspace:
    """The contents of the two files, by the plain model's names.

    Args:
        config: The subspace's settings.
        layer_names: Modules in the order of their coefficients.
        spanned: All names of each spanned tensor; a tied one has several.
        shapes: The shape of every tensor in the plain model's state dict.
        points: For each control point its tensors, by the first name of each. Complex ones as pairs of real numbers.
        buffers: The model's persistent buffers, complex ones likewise.
    """

    config: SubspaceConfig
    layer_names: list[str]
    spanned: list[list[str]]
    shapes: dict[str, list[int]]
    points: list[dict[str, Tensor]]
    buffers: dict[str, Tensor]

    @classmethod
    def collect(
        cls, model: nn.Module, spans: Sequence[Span], config: SubspaceConfig, layer_names: Sequence[str]
    ) -> "SavedSubspace | None":
        """Collects the subspace of an attached model; None on ranks other than 0 if parameters are sharded."""
        states = [
            tensors_of(plain_state_dict(model, spans, lambda span, index=index: gathered(span.points[index])))
            for index in range(config.num_points)
        ]
        is_sharded = any(hasattr(p, "full_tensor") for p in model.parameters())
        if is_sharded and torch.distributed.get_rank() != 0:
            return None
        buffers = [name for name, _ in model.named_buffers() if name in states[0]]
        return cls(
            config,
            [plain_name(name) for name in layer_names],
            [[plain_name(name) for name in span.names] for span in spans],
            {plain_name(name): list(t.shape) for name, t in states[0].items()},
            [{plain_name(s.names[0]): _as_stored(state[s.names[0]]) for s in spans} for state in states],
            {plain_name(name): _as_stored(states[0][name]) for name in buffers},
        )

    def write(self, folder: str | PathLike) -> None:
        """Writes both files into a folder."""
        described = {name: getattr(self, name) for name in ("layer_names", "spanned", "shapes")}
        tensors = {f"point{i}.{name}": t for i, point in enumerate(self.points) for name, t in point.items()}
        tensors |= {f"buffer.{name}": t for name, t in self.buffers.items()}
        _files.write_files(folder, {**dataclasses.asdict(self.config), **described}, tensors)

    @classmethod
    def read(cls, folder: str | PathLike) -> "SavedSubspace":
        """Reads both files from a folder, or from the Hub repository of that id.

        Raises:
            ValueError: A file is missing or damaged.
        """
        description, tensors = _files.read_files(folder)
        try:
            config = SubspaceConfig(**{f.name: description[f.name] for f in dataclasses.fields(SubspaceConfig)})
            layer_names, spanned, shapes = (description[key] for key in ("layer_names", "spanned", "shapes"))
        except (ValueError, KeyError, TypeError) as error:
            name = _files.CONFIG_NAME
            raise ValueError(f"{name} in {folder} is no complete description of a subspace ({error!r}).") from error
        try:
            points = [{n[0]: tensors.pop(f"point{i}.{n[0]}") for n in spanned} for i in range(config.num_points)]
        except KeyError as error:
            name = _files.WEIGHTS_NAME
            raise ValueError(f"{name} in {folder} is damaged or cut short ({error}): copy it again.") from error
        buffers = {name.removeprefix("buffer."): tensor for name, tensor in tensors.items()}
        return cls(config, layer_names, spanned, shapes, points, buffers)

    def add_to(self, model: nn.Module, folder: str | PathLike) -> nn.Module:
        """Gives the module that the subspace was saved of, `model` or a child of it, its control points and buffers.

        Args:
            model: A plain model; changed in place.
            folder: Where the subspace comes from, for messages.

        Returns:
            That module.

        Raises:
            ValueError: The model has another architecture.
        """
        prefix, names = find_module(model, self.shapes)
        module = model.get_submodule(prefix)
        self._check_architecture(names, module, folder)
        # Saved as spanned is spanned again, whether or not it requires a gradient in this model.
        first_names = {names[tied[0]] for tied in self.spanned}
        holders = {p: held for p, held in find_holders(module).items() if held.names[0] in first_names}
        points = [{names[name]: value for name, value in point.items()} for point in self.points]
        for parameter, held in holders.items():
            for point in points:
                point[held.names[0]] = _restored(point[held.names[0]], parameter)
        add_points(list(holders.values()), points)
        buffers = dict(module.named_buffers())
        for name, value in self.buffers.items():
            buffers[names[name]].copy_(_restored(value, buffers[names[name]]))
        return module

    def _check_architecture(self, names: Mapping[str, str], model: nn.Module, folder: str | PathLike) -> None:
        """Raises `ValueError` with the first difference, unless the model has the saved tensors, tied in the same way."""
        theirs = {names[name]: shape for name, shape in self.shapes.items()}
        own = {name: list(t.shape) for name, t in tensors_of(model.state_dict()).items()}
        for name in {**own, **theirs}:
            if theirs.get(name) != own.get(name):
                saved, here = (
                    f"shape {shapes[name]}" if name in shapes else "no such tensor" for shapes in (theirs, own)
                )
                raise ValueError(
                    f"The subspace in {folder} is of another architecture: for {name!r} it has {saved}, the model {here}."
                )
        ties: dict[nn.Parameter, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            ties.setdefault(parameter, []).append(name)
        for saved_tie in self.spanned:
            tie = [names[name] for name in saved_tie]
            present = ties[model.get_parameter(tie[0])]
            if sorted(present) != sorted(tie):
                raise ValueError(
                    f"The subspace in {folder} is of another architecture: there, one tensor is {' and '.join(tie)}; "
                    f"in the model it is {' and '.join(present)}."
                )


def _as_stored(tensor: Tensor) -> Tensor:
    """The tensor as it is written: a complex one as pairs, for safetensors has no dtype for most of them."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _restored(stored: Tensor, like: Tensor) -> Tensor:
    """A stored tensor with the dtype and on the device of `like`."""
    if like.is_complex() and not stored.is_complex():
        stored = torch.view_as_complex(stored.clone())  # in the file it need not lie at a multiple of its own size
    return stored.to(like)
