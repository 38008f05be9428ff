"""A saved subspace put into a plain model of its architecture."""

from collections.abc import Collection, Mapping
from os import PathLike

from torch import nn

from ._files import SavedSubspace, restore
from ._span import add_points, find_holders, plain_name
from ._state import tensors_of


def add_saved_points(saved: SavedSubspace, model: nn.Module, folder: str | PathLike) -> nn.Module:
    """Gives the module that a subspace was saved of, `model` or a child of it, its control points and buffers.

    Args:
        saved: The subspace.
        model: A plain model; changed in place.
        folder: Where the subspace comes from, for messages.

    Returns:
        That module.

    Raises:
        ValueError: The model has another architecture.
    """
    module, names = _match_names(model, saved.shapes)
    _check_architecture(saved, names, module, folder)
    # What was spanned is spanned again, whether or not it requires a gradient in this model.
    first_names = {names[tied[0]] for tied in saved.spanned}
    holders = {p: held for p, held in find_holders(module).items() if held.names[0] in first_names}
    points = [{names[name]: value for name, value in point.items()} for point in saved.points]
    for parameter, held in holders.items():
        for point in points:
            point[held.names[0]] = restore(point[held.names[0]], parameter)
    add_points(list(holders.values()), points)
    buffers = dict(module.named_buffers())
    for name, value in saved.buffers.items():
        buffers[names[name]].copy_(restore(value, buffers[names[name]]))
    return module


def _match_names(model: nn.Module, saved_names: Collection[str]) -> tuple[nn.Module, dict[str, str]]:
    """Finds the module that the saved names are of, and its own name for each of them.

    A network is saved with or without a wrapper around it (as transformers has one around timm's networks), compiled
    or not, and loaded into either.
    """
    fronts = {name.partition(".")[0] + "." for name in saved_names}
    for module in (model, *model.children()):
        own = {plain_name(name): name for name in tensors_of(module.state_dict())}
        for prefix in ("", *fronts):
            if any(name.removeprefix(prefix) in own for name in saved_names if name.startswith(prefix)):
                bare = {name: name.removeprefix(prefix) for name in saved_names}
                return module, {name: own.get(short, short) for name, short in bare.items()}
    return model, {name: name for name in saved_names}


def _check_architecture(
    saved: SavedSubspace, names: Mapping[str, str], model: nn.Module, folder: str | PathLike
) -> None:
    """Raises `ValueError` with the first difference, unless the model has the saved tensors, tied in the same way."""
    theirs = {names[name]: shape for name, shape in saved.shapes.items()}
    own = {name: list(t.shape) for name, t in tensors_of(model.state_dict()).items()}
    for name in {**own, **theirs}:
        if theirs.get(name) != own.get(name):
            was, has = (f"shape {shapes[name]}" if name in shapes else "no such tensor" for shapes in (theirs, own))
            raise ValueError(
                f"The subspace in {folder} is of another architecture: for {name!r} it has {was}, the model {has}."
            )
    ties: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        ties.setdefault(parameter, []).append(name)
    for saved_tie in saved.spanned:
        tie = [names[name] for name in saved_tie]
        found = ties[model.get_parameter(tie[0])]
        if sorted(found) != sorted(tie):
            raise ValueError(
                f"The subspace in {folder} is of another architecture: there, one tensor is {' and '.join(tie)}; "
                f"in the model it is {' and '.join(found)}."
            )
