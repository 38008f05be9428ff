"""One frozen row a method: its name, class and paper, and how a training loop has to treat it."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch

from .adam_srt import AdamS, AdamSRT
from .alig import AliG
from .fromage import Fromage
from .grassmann import SGDG, AdamG
from .sgd_mrt import SGDMRT

# (shape of a scale-invariant weight, the axes that index its invariant groups) -> settings of its
# parameter group, or None if the method has to treat the weight as any other.
GeometryRule = Callable[[torch.Size, tuple[int, ...]], Mapping[str, Any] | None]
NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Paper:
    """The data of a citation. `authors` are "Family, Given" in order; `venue` is as the proceedings name it."""

    key: str
    title: str
    authors: tuple[str, ...]
    venue: str
    year: int
    arxiv: str

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}"

    @property
    def bibtex(self) -> str:
        fields = {
            "title": f"{{{self.title}}}",
            "author": " and ".join(self.authors),
            "booktitle" if "Conference" in self.venue or "Advances" in self.venue else "journal": self.venue,
            "year": str(self.year),
            "eprint": self.arxiv,
            "archivePrefix": "arXiv",
        }
        kind = "inproceedings" if "booktitle" in fields else "article"
        return f"@{kind}{{{self.key},\n" + "".join(f"  {k} = {{{v}}},\n" for k, v in fields.items()) + "}"


@dataclass(frozen=True)
class Method:
    """A registered optimizer.

    Args:
        name: The name that users type: lower case letters and digits (timm splits names at underscores); of another
            library, its name for it after the library's and a colon.
        cls: The `torch.optim.Optimizer` class.
        paper: Where the method was published; None for a baseline of another library.
        lr: Learning rate used when the user gives none; None where there has to be one.
        settings: Further settings used unless the user gives others.
        needs_loss: Whether `step` needs the value of the loss (`set_loss(value)` or a closure).
        clipping: The effect of clipping the global gradient norm: "allowed" (as with SGD or Adam), "irrelevant" (the step
            does not depend on the gradient's scale), "harmful" (it makes another step), or "own" (the method clips by itself).
        geometry: Settings of the parameter group of a scale-invariant weight; None when all weights are treated alike.
        geometry_settings: Further settings of those groups, used unless the user gives others.
        geometry_lr: Learning rate of those groups, as a multiple of the others'.
        instead_of_decay: For a class without `weight_decay`, the setting that bounds the weights.
        whole_weights: Whether the rule is not elementwise, so that engines that flatten weights are refused.
        shardable: Whether the class takes sharded parameters (FSDP2); those of this package check each one themselves.
        group_settings: Settings that the class takes from parameter groups alone.
    """

    name: str
    cls: type[torch.optim.Optimizer]
    paper: Paper | None
    lr: float | None
    settings: Mapping[str, Any] = field(default_factory=lambda: NO_SETTINGS)
    needs_loss: bool = False
    clipping: Literal["allowed", "irrelevant", "harmful", "own"] = "allowed"
    geometry: GeometryRule | None = None
    geometry_settings: Mapping[str, Any] = field(default_factory=lambda: NO_SETTINGS)
    geometry_lr: float = 1.0
    instead_of_decay: str | None = None
    whole_weights: bool = True
    shardable: bool = True
    group_settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("settings", "geometry_settings"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        library, _, name = self.name.rpartition(":")
        if not (name.isalnum() and (library or name.islower())):
            raise ValueError(f"A method's name is lower case letters and digits, not {self.name!r}.")
        if not (isinstance(self.cls, type) and issubclass(self.cls, torch.optim.Optimizer)):
            raise TypeError(f"Method {self.name!r} needs a torch.optim.Optimizer class, not {self.cls!r}.")
        unknown = {*self.settings, *self.geometry_settings} - set(self.arguments)
        if unknown:
            raise ValueError(f"Method {self.name!r} sets {sorted(unknown)}, which {self.cls.__name__} does not take.")
        if self.needs_loss and not hasattr(self.cls, "set_loss"):
            raise TypeError(f"Method {self.name!r} needs the loss, so {self.cls.__name__} must have set_loss(value).")

    @property
    def arguments(self) -> dict[str, inspect.Parameter]:
        """The arguments of the class after `params`."""
        return dict(list(inspect.signature(self.cls).parameters.items())[1:])

    def check_settings(self, names: Any) -> None:
        """Raises `ValueError` for a setting the class does not take, and names the nearest that it does."""
        known = [*self.arguments, *self.group_settings]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"{self.name} has no setting {name!r}: {hint}It takes {', '.join(known)}.")


_METHODS: dict[str, Method] = {}


def register_optimizer(method: Method) -> None:
    """Adds a method, which then works wherever the built-in ones do (`create_optimizer`, `--optim NAME`).

    Raises:
        ValueError: The name is taken.
        TypeError: `method` is not a `Method`.
    """
    if not isinstance(method, Method):
        raise TypeError(f"register_optimizer takes a Method, not {method!r}.")
    if method.name in _METHODS:
        raise ValueError(f"An optimizer named {method.name!r} is registered already ({_METHODS[method.name].cls}).")
    _METHODS[method.name] = method


def list_optimizers() -> list[str]:
    """Names of the registered methods, in the order of registration."""
    return list(_METHODS)


def get_method(name: str) -> Method:
    """The row of a method.

    Raises:
        ValueError: Unknown name; the message lists the known ones.
    """
    if name not in _METHODS:
        near = difflib.get_close_matches(str(name), _METHODS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown optimizer {name!r}.{hint} Known: {', '.join(_METHODS)}.")
    return _METHODS[name]


def _by_channel_dims(shape: torch.Size, channel_dims: tuple[int, ...]) -> Mapping[str, Any]:
    """Roburin et al.: every scale-invariant weight, in its own groups."""
    return {"channel_dims": channel_dims}


def _undercomplete_filters(shape: torch.Size, channel_dims: tuple[int, ...]) -> Mapping[str, Any] | None:
    """Cho & Lee: one unit vector an output unit, and fewer of them than the space has dimensions."""
    is_undercomplete = len(shape) > 1 and shape[0] < shape[1:].numel()
    return {"grassmann": True} if channel_dims == (0,) and is_undercomplete else None


FROMAGE = Paper(
    "bernstein2020distance",
    "On the distance between two neural networks and the stability of learning",
    ("Bernstein, Jeremy", "Vahdat, Arash", "Yue, Yisong", "Liu, Ming-Yu"),
    "Advances in Neural Information Processing Systems",
    2020,
    "2002.03432",
)
ALIG = Paper(
    "berrada2020training",
    "Training Neural Networks for and by Interpolation",
    ("Berrada, Leonard", "Zisserman, Andrew", "Kumar, M. Pawan"),
    "International Conference on Machine Learning",
    2020,
    "1906.05661",
)
SPHERICAL = Paper(
    "roburin2022spherical",
    "Spherical Perspective on Learning with Normalization Layers",
    (
        "Roburin, Simon",
        "de Mont-Marin, Yann",
        "Bursuc, Andrei",
        "Marlet, Renaud",
        "P{\\'e}rez, Patrick",
        "Aubry, Mathieu",
    ),
    "Neurocomputing",
    2022,
    "2006.13382",
)
RIEMANNIAN = Paper(
    "cho2017riemannian",
    "Riemannian approach to batch normalization",
    ("Cho, Minhyung", "Lee, Jaehyung"),
    "Advances in Neural Information Processing Systems",
    2017,
    "1709.09603",
)

_CHO_AND_LEE: dict[str, Any] = {
    "settings": {"momentum": 0.9, "nesterov": True},
    "clipping": "own",
    "geometry": _undercomplete_filters,
    "geometry_settings": {"omega": 0.1, "grad_clip": 0.1},
}

register_optimizer(Method("fromage", Fromage, FROMAGE, lr=0.01, clipping="irrelevant", instead_of_decay="p_bound"))
register_optimizer(
    Method(
        "alig",
        AliG,
        ALIG,
        lr=0.1,
        settings={"momentum": 0.9},
        needs_loss=True,
        clipping="harmful",
        instead_of_decay="max_norm",
    )
)
register_optimizer(Method("adamsrt", AdamSRT, SPHERICAL, lr=1e-3, geometry=_by_channel_dims))
register_optimizer(Method("adams", AdamS, SPHERICAL, lr=1e-3, geometry=_by_channel_dims))
register_optimizer(Method("sgdmrt", SGDMRT, SPHERICAL, lr=0.1, settings={"momentum": 0.9}, geometry=_by_channel_dims))
register_optimizer(Method("sgdg", SGDG, RIEMANNIAN, lr=0.01, geometry_lr=20.0, **_CHO_AND_LEE))
register_optimizer(Method("adamg", AdamG, RIEMANNIAN, lr=0.01, geometry_lr=5.0, **_CHO_AND_LEE))
