"""A model run on copies of its tensors, and left exactly as it was."""

import dataclasses
import random
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_EPSILONS = frozenset({"eps", "epsilon"})
_LARGEST_EPSILON = 1e-3  # TensorFlow's default, and that of networks ported from it


class Probe:
    """Runs a model in training mode, in `dtype` or else in its own dtypes, at any values of its parameters.

    The model computes with copies: its parameters and their gradients, its buffers and its other tensors are never
    written to. Attributes that are an epsilon by name and size are lowered to `eps` if they are larger.
    """

    def __init__(self, model: nn.Module, example_inputs: Any, dtype: torch.dtype | None, eps: float) -> None:
        self.model, self.inputs, self.dtype, self.eps = model, example_inputs, dtype, eps
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        tensors = [*model.parameters(), *model.buffers()]
        self.device = tensors[0].device
        self.devices = sorted({tensor.device for tensor in tensors}, key=str)

    def cast(self, tensor: Tensor) -> Tensor:
        """A copy in the probe's dtype or its complex counterpart; integers and booleans keep theirs."""
        dtype = tensor.dtype
        if self.dtype is not None and tensor.is_complex():
            dtype = self.dtype.to_complex()
        elif self.dtype is not None and tensor.is_floating_point():
            dtype = self.dtype
        return tensor.detach().to(dtype, copy=True)

    def run(
        self, values: Mapping[str, Tensor], seed: int, objective: Callable[[list[Tensor]], Tensor] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor], bool]:
        """Runs the model once.

        Args:
            values: All parameters, in the probe's dtype.
            seed: Seeds the random numbers that the model draws.
            objective: A function of the outputs whose gradients are wanted.

        Returns:
            The floating-point outputs, the objective's gradients for the parameters that have one, and whether the
            model drew random numbers.
        """
        leaves = {n: v.detach().requires_grad_(v.is_floating_point() or v.is_complex()) for n, v in values.items()}
        with self._isolated(leaves, seed):
            self.model.train()
            inputs = map_tensors(self.inputs, lambda tensor: self.cast(tensor).to(self.device))
            before = self._generator_states()
            outputs = list(floating_tensors(self._call(inputs)))
            drew = any(not torch.equal(a, b) for a, b in zip(before, self._generator_states(), strict=True))
            if objective is not None:  # in here, since checkpointed blocks run again in the backward pass
                objective(outputs).backward()
        gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
        return [tensor.detach() for tensor in outputs], gradients, drew

    def _call(self, inputs: Any) -> Any:
        if isinstance(inputs, dict):
            return self.model(**inputs)
        return self.model(*inputs) if isinstance(inputs, list | tuple) else self.model(inputs)

    @contextmanager
    def _isolated(self, leaves: Mapping[str, Tensor], seed: int) -> Iterator[None]:
        """The model computing with `leaves` and copies of its other tensors, whatever modes the caller has set."""
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            for kind in {device.type for device in self.devices}:
                stack.enter_context(torch.autocast(kind, enabled=False))
            if "torch._dynamo" in sys.modules:  # compiling once more for this dtype would take longer than the run
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(seeded_generators(seed, self.devices))
            stack.enter_context(without_gradients(self.model))
            stack.enter_context(substituted(self.model, self._substitution(leaves)))
            yield

    def _substitution(self, leaves: Mapping[str, Tensor]) -> Callable[[Any, Any], Any]:
        """The function from an attribute's name and value to the value that the model computes with."""
        copies: dict[int, Tensor] = {}  # by the identity of the original, so that shared tensors stay shared

        def substitute(key: Any, value: Any) -> Any:
            if isinstance(value, Tensor):
                if id(value) in self.names:
                    return leaves[self.names[id(value)]]
                if id(value) not in copies:
                    copies[id(value)] = self.cast(value)
                return copies[id(value)]
            if isinstance(value, torch.Generator):
                return value.clone_state()
            return min(value, self.eps) if is_epsilon(str(key), value) else value

        return substitute

    def _generator_states(self) -> list[Tensor]:
        accelerators = [device for device in self.devices if device.type != "cpu"]
        return [torch.get_rng_state(), *(torch.get_device_module(d).get_rng_state(d) for d in accelerators)]


def is_epsilon(name: str, value: Any) -> bool:
    """Whether an attribute is the epsilon that a norm adds to a variance.

    "eps" or "epsilon" has to be a word of its name (`layer_norm_eps`, `varianceEpsilon`, not `stepsize`), and its value
    small, as that of a step size or a smoothing is not.
    """
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    return isinstance(value, float) and value <= _LARGEST_EPSILON and not _EPSILONS.isdisjoint(words)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in it changed, mappings made into dicts."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        make = getattr(value, "_make", type(value))  # of a named tuple, whose class takes its fields one by one
        return make([map_tensors(item, change) for item in value])
    return value


def floating_tensors(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors of a model's output, in dicts, lists, tuples and dataclasses too; complex ones as pairs."""
    if isinstance(value, Tensor):
        if value.is_complex():
            yield torch.view_as_real(value)
        elif value.is_floating_point():
            yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from floating_tensors(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from floating_tensors(getattr(value, field.name))


def deviation(outputs: list[Tensor], base: list[Tensor]) -> float:
    """The largest |output - base| / |base| of the tensors, without the entries that are not finite in `base`."""
    if [o.shape for o in outputs] != [b.shape for b in base]:
        return float("inf")
    worst = 0.0
    for output, reference in zip(outputs, base, strict=True):
        finite = reference.isfinite()
        output, reference = output[finite].double(), reference[finite].double()
        if not output.isfinite().all():
            return float("inf")
        change = torch.linalg.vector_norm(output - reference).item()
        if change > 0:
            worst = max(worst, change / max(torch.linalg.vector_norm(reference).item(), change * 1e-9))
    return worst


@contextmanager
def substituted(model: nn.Module, substitute: Callable[[Any, Any], Any]) -> Iterator[None]:
    """Replaces the attributes of all modules, and the items of their dicts and lists, by `substitute(key, value)`.

    Afterwards all of them have their former contents, whatever the model did to them.
    """
    holders: list[Any] = []
    for module in model.modules():
        holders += [vars(module), *(v for v in vars(module).values() if type(v) in (dict, OrderedDict, list, set))]
    before = [holder.copy() for holder in holders]
    try:
        for holder, content in zip(holders, before, strict=True):
            if not isinstance(holder, set):
                for key, value in content.items() if isinstance(holder, dict) else enumerate(content):
                    holder[key] = substitute(key, value)
        yield
    finally:
        for holder, content in zip(holders, before, strict=True):
            holder.clear()
            holder.extend(content) if isinstance(holder, list) else holder.update(content)


@contextmanager
def without_gradients(model: nn.Module) -> Iterator[None]:
    """Keeps gradients from the parameters themselves, which a model may also hold in a place that is not substituted."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()


@contextmanager
def seeded_generators(seed: int, devices: Iterable[torch.device]) -> Iterator[None]:
    """Seeds the generators of torch (the CPU's and those of `devices`), Python and NumPy, and puts their states back."""
    numpy = sys.modules.get("numpy")
    python, array = random.getstate(), numpy and numpy.random.get_state()
    accelerators = [device for device in devices if device.type != "cpu"]
    with torch.random.fork_rng(accelerators, device_type=accelerators[0].type if accelerators else "cuda"):
        # Not torch.manual_seed, which would reseed accelerators that the model does not use.
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        for device in accelerators:
            torch.get_device_module(device).set_rng_state(torch.Generator(device).manual_seed(seed).get_state(), device)
        random.seed(seed)
        if numpy:
            numpy.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            if numpy:
                numpy.random.set_state(array)
