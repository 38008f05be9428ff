"""The optimizers of timm's registry and of torch.optim as rows like those of this package: `timm:NAME`, `torch:NAME`."""

import functools
import inspect
from numbers import Real
from typing import Any

import timm.optim
import torch

from hf_geo.optim import Method, list_optimizers

# What a training loop of one forward and one backward pass an update cannot give.
_REFUSED = {
    "torch:LBFGS": "evaluates the loss several times within a step",
    "torch:SparseAdam": "takes sparse gradients alone, and layers other than sparse embeddings have none",
}
_SECOND_ORDER = "needs second derivatives, for which every backward pass would have to keep its graph"
# Rules of torch that are not elementwise; timm's are not told apart.
_WHOLE_WEIGHTS = (torch.optim.Adafactor, torch.optim.Muon)
# With torch 2.14 and timm 1.0.31 these fail on sharded parameters, or (Muon) differ by more than rounding.
_WHOLE_ONLY = {
    *("timm.AdamP", "timm.Kron", "timm.Mars", "timm.Muon", "timm.NvNovoGrad", "timm.SGDP"),
    *("torch.Adafactor", "torch.Muon", "torch.Rprop"),
}
_SOURCES = {"bitsandbytes": "pip install bitsandbytes", "apex": "see https://github.com/NVIDIA/apex"}


def library_names() -> list[str]:
    """Lists `timm:NAME` for timm's registry, without this package's own methods, and `torch:NAME` for torch.optim."""
    own = set(list_optimizers())
    return [f"timm:{name}" for name in timm.optim.list_optimizers() if name not in own] + [
        f"torch:{name}" for name in _torch_classes()
    ]


@functools.cache
def library_method(name: str) -> Method:
    """Makes the row of another library's optimizer.

    The defaults are those of its class and, for timm, of its registry; where the class has no momentum by default and
    timm's registry counts on one, it is 0.9, as `timm.optim.create_optimizer_v2` has it. Weight decay is
    `args.weight_decay` (0 by default), as for all optimizers, not the class's default. The Trainer clips gradients, where
    `--max_grad_norm` asks for it, so a class that would do so itself (LAMB) does not by default.

    Args:
        name: One of `library_names()`.

    Raises:
        ValueError: The training loop has not what the method needs.
        ImportError: The optimizer needs a package, or a GPU, that is not there.
    """
    library, _, own_name = name.partition(":")
    info = timm.optim.get_optimizer_info(own_name) if library == "timm" else None
    reason = _SECOND_ORDER if info and info.second_order else _REFUSED.get(name)
    if reason:
        raise ValueError(f"--optim {name} {reason}, which this Trainer does not do: choose another optimizer.")
    cls = _timm_class(own_name) if info else _torch_classes()[own_name]
    arguments = inspect.signature(cls).parameters
    settings: dict[str, Any] = dict(info.defaults or {}) if info else {}
    if info and info.has_momentum and not arguments["momentum"].default:
        settings["momentum"] = 0.9
    if "max_grad_norm" in arguments:
        settings["max_grad_norm"] = None
    lr, full_name = arguments["lr"].default, f"{cls.__module__.partition('.')[0]}.{cls.__name__}"
    return Method(
        name,
        cls,
        paper=None,
        lr=lr if isinstance(lr, Real) else None,
        settings=settings,
        whole_weights=info is not None or cls in _WHOLE_WEIGHTS,
        shardable=not (full_name in _WHOLE_ONLY or settings.get("caution")),
        # timm's Muon updates the weights of a group marked so with its AdamW, as those of other shapes.
        group_settings=("use_fallback",) if full_name == "timm.Muon" else (),
    )


def _torch_classes() -> dict[str, type[torch.optim.Optimizer]]:
    classes = {name: cls for name, cls in vars(torch.optim).items() if isinstance(cls, type)}
    optimizer = torch.optim.Optimizer
    return {name: cls for name, cls in classes.items() if issubclass(cls, optimizer) and cls is not optimizer}


def _timm_class(name: str) -> type[torch.optim.Optimizer]:
    try:
        return timm.optim.get_optimizer_class(name, bind_defaults=False)
    except (AssertionError, ImportError) as error:  # timm asserts that there is a GPU for those of other packages
        package = timm.optim.get_optimizer_info(name).opt_class.partition(".")[0]
        source = _SOURCES.get(package, f"pip install {package}")
        raise ImportError(f"--optim timm:{name} needs a CUDA GPU and the package {package} ({source}).") from error
