"""The base of the methods of Roburin et al., whose weights are points on spheres."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ._base import GeometricOptimizer, check_flag
from .kernels.rows import Rows


class SphericalOptimizer(GeometricOptimizer):
    """Base of the methods that treat groups of weights, indexed by `channel_dims`, as points on spheres."""

    def _with_implied_settings(self, group: dict[str, Any]) -> dict[str, Any]:
        # A group's own channel_dims override a channel_wise=True given for all groups, and the other way round.
        if "channel_dims" in group:
            return {"channel_wise": False, **group}
        return {"channel_dims": None, **group} if group.get("channel_wise") is True else group

    def _check_group(self, group: dict[str, Any]) -> None:
        check_flag(group, "channel_wise")
        dims = group["channel_dims"]
        if dims is not None:
            if isinstance(dims, str) or not isinstance(dims, Sequence):
                raise TypeError(f"channel_dims has to be a list of axes or None, not {dims!r}.")
            if not all(isinstance(axis, int) and not isinstance(axis, bool) for axis in dims):
                raise TypeError(f"channel_dims has to hold integers, but it is {dims!r}.")
            if group["channel_wise"] and tuple(dims) != (0,):
                raise ValueError(
                    f"channel_wise=True means channel_dims=[0], but channel_dims is {dims!r}: give one of them."
                )
            group["channel_dims"] = tuple(dims)
        for p in group["params"]:
            self._check_axes(tuple(p.shape), self._channel_dims(group) or ())

    @staticmethod
    def _check_axes(shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
        for axis in dims:
            if not -len(shape) <= axis < len(shape):
                raise ValueError(
                    f"channel_dims={list(dims)} names axis {axis}, which a parameter of shape {shape} does not have: "
                    "put that parameter into another group."
                )
        if len({axis % len(shape) for axis in dims}) < len(dims):
            raise ValueError(f"channel_dims={list(dims)} names an axis of a parameter of shape {shape} twice.")

    @staticmethod
    def _channel_dims(group: dict[str, Any]) -> tuple[int, ...] | None:
        return (0,) if group["channel_wise"] else group["channel_dims"]

    def _split_by_geometry(
        self, group: dict[str, Any], params: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], dict[Tensor, Rows]]:
        """Splits parameters into those that take the plain step, and those on spheres, with the rows of these."""
        dims = self._channel_dims(group)

        def split() -> tuple[list[Tensor], list[Tensor], dict[Tensor, Rows]]:
            pairs = [(p, Rows.of(p, dims)) for p in params]
            spherical = [(p, rows) for p, rows in pairs if rows is not None]
            return [p for p, rows in pairs if rows is None], [p for p, _ in spherical], dict(spherical)

        return self._memory.remember(("split", dims), params, split)
