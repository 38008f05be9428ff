"""The networks or adapters that scripts/merge.py is given, opened with the data to measure them on."""

import argparse
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from hf_geo.data.config import DataArguments
from hf_geo.evaluation.merging import StateDict, are_equal, average, first_difference, only_member
from hf_geo.evaluation.norms import recalibrate_norms, running_statistics
from hf_geo.evaluation.segment import walk_segment
from hf_geo.evaluation.trust import TrustData
from hf_geo.evaluation.walk import Walk, evaluate_models
from hf_geo.hub.export import export_model
from hf_geo.models.adapters import find_base, open_adapter, read_adapter
from hf_geo.models.sources import ModelSource
from hf_geo.tasks import EvaluationOptions, EvaluationSetup, Task, find_trained, infer_task, open_trained

from .trained import display_names, evaluation_options

# Of an adapter's configuration: where it came from and what it is for just now, which changes none of its weights.
_FREE = {"inference_mode", "revision", "peft_version", "auto_mapping", "corda_config", "eva_config"}


@dataclass
class Parents:
    """Networks or adapters of one architecture.

    Args:
        names: For people.
        task: Their task.
        setup: The data, with the first network among its models.
        model: A network of the architecture, which takes any of the weights.
        states: The weights of each: whole state dicts, or the trainable parameters of adapters.
        adapter_of: The adapters' base model, if they are adapters.
        reopen: Opens the same networks with another dataset.
        batches: Batches to take norm statistics from; None for all.
        recalibrated: Samples that the norm statistics of the last combination are of; 0 where it kept those of a network.
    """

    names: list[str]
    task: Task
    setup: EvaluationSetup
    model: nn.Module
    states: list[StateDict]
    adapter_of: str | None
    reopen: Callable[[DataArguments], EvaluationSetup]
    batches: int | None
    recalibrated: int = field(default=0, init=False)

    @property
    def takes_statistics(self) -> bool:
        """Whether norm statistics have to be taken anew: an adapter leaves those of its base alone."""
        return not self.adapter_of and self.setup.recalibration is not None and bool(running_statistics(self.model))

    def combine(self, coefficients: Sequence[float]) -> dict[str, Tensor]:
        """The weighted average, with norm statistics taken anew unless it is one of the networks; leaves it in the model."""
        self.load(average(self.states, coefficients))
        self.recalibrated = 0
        if self.takes_statistics and only_member(coefficients) is None:
            self.recalibrated = recalibrate_norms(self.model, self.setup.recalibration, self.batches)
        return {name: value.clone() for name, value in self.model.state_dict().items() if name in self.states[0]}

    @property
    def base(self) -> nn.Module:
        """The network itself, or the one inside the adapters."""
        return self.model.get_base_model() if self.adapter_of else self.model

    @property
    def processor_class(self) -> str | None:
        """The class of transformers that opens what prepares samples for the networks; None where nothing does."""
        if self.setup.view is None:
            return None
        return "AutoImageProcessor" if self.setup.view.fields == ("image",) else "AutoTokenizer"

    @property
    def validation(self) -> DataLoader:
        """The validation split; raises `ValueError` where there is none besides the split that is reported on."""
        return self.setup.validation_or("take --method average, or interpolate with --position")

    def load(self, state: StateDict) -> None:
        """Puts weights into the model."""
        self.model.load_state_dict(state, strict=False)

    def measure(self, state: StateDict, loader: Iterable) -> Walk:
        """The metrics of weights, as they are."""
        self.load(state)
        return evaluate_models([self.model], loader, causal=self.setup.causal)

    def score(self, metric: str, state: StateDict) -> float:
        """A metric on the validation split; of weights that are none of the networks' with norm statistics taken anew."""
        if self.takes_statistics and not any(state is own for own in self.states):
            self.load(state)
            recalibrate_norms(self.model, self.setup.recalibration, self.batches)
            state = self.model.state_dict()
        found = self.measure(state, self.validation).points[0]
        if metric not in found:
            measured = [name for name, value in found.items() if isinstance(value, float)]
            raise ValueError(f"--metric {metric} is not measured: choose one of {', '.join(measured)}.")
        return found[metric]

    def open_also(self, name: str, data_args: DataArguments) -> tuple[str, Iterable]:
        """A further data set of the same classes, NAME or NAME:CONFIG: its name for people, and batches of it."""
        dataset, _, config = name.partition(":")
        if self.setup.open_shifted is not None:
            return ":".join(filter(None, (*display_names([dataset]), config))), self.setup.open_shifted(name)
        other = DataArguments(
            dataset=dataset, dataset_config=config or None, max_eval_samples=data_args.max_eval_samples
        )
        setup = self.reopen(other)
        return setup.dataset, setup.evaluation

    def export(self, state: StateDict, folder: Path) -> None:
        """Writes weights as a folder that the libraries open: of a network, or of an adapter."""
        self.load(state)
        if self.adapter_of:
            self.model.save_pretrained(folder)
            (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card
        else:
            export_model(self.model, folder, processor=self.setup.processor)

    def walk(
        self, positions: Sequence[float], loader: Iterable, *, recalibrate: bool = True, trust: TrustData | None = None
    ) -> Walk:
        """Evaluates networks between the first and the second, see `walk_segment`."""
        return walk_segment(
            self.model,
            *self.states,
            positions,
            loader,
            self.setup.recalibration if recalibrate and self.takes_statistics else None,
            recalibration_batches=self.batches,
            trust=trust,
            causal=self.setup.causal,
        )


def open_parents(options: argparse.Namespace, data_args: DataArguments) -> Parents:
    """Opens what `--model` names.

    Raises:
        ValueError: They are of different architectures, bases or classes, quantized, or equal where they may not be.
    """
    names, how = display_names(options.model), evaluation_options(options)
    bases = [find_base(name) for name in options.model]
    if any(bases):
        _check_adapters(options.model, names, bases)
        sources = [find_trained(bases[0])]
    else:
        sources = [find_trained(name) for name in options.model]
    for source in sources:
        if source.config.get("quantization_config"):
            raise ValueError(
                f"The weights of {source.name!r} are quantized, so they have no average: merge, then quantize."
            )
    if options.without_head:
        sources = [sources[0], *(_with_classes_of(sources[0], source) for source in sources[1:])]
    setup = open_trained(sources, data_args, how)
    if setup.measure:
        raise ValueError(f"{names[0]!r} generates images, and merges are judged by predictions: merge other models.")
    model = setup.models[0]
    if bases[0]:
        states = []
        for name in options.model:
            model = open_adapter(open_trained(sources, data_args, how).models[0], name).to(how.device).eval()
            states.append({n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad})
    else:
        model.requires_grad_(True)
        states = [{n: t.detach().clone() for n, t in each.state_dict().items()} for each in setup.models]
        for name, state in zip(names[1:], states[1:], strict=True):
            if difference := first_difference(states[0], state):
                raise ValueError(f"{names[0]!r} and {name!r} are of different architectures: {difference}.")
    if options.without_head:
        head = _head(model)
        states = [states[0], *(state | {name: states[0][name] for name in head} for state in states[1:])]
        # A replaced head makes another network.
        names = [names[0], *(f"{name} with the head of {names[0]}" for name in names[1:])]
    for one, other in itertools.combinations(range(len(states)), 2):
        if are_equal(states[one], states[other]):
            so = ", so the barrier between them is zero" if options.method == "barrier" else ""
            raise ValueError(f"{names[one]!r} and {names[other]!r} are equal{so}: give other networks.")
    return Parents(
        names,
        infer_task(sources[0].name, data_args.dataset),
        setup,
        model,
        states,
        bases[0],
        partial(_reopen, sources[:1], how),
        options.recalibration_batches or None,
    )


def _reopen(sources: Sequence[ModelSource], how: EvaluationOptions, data_args: DataArguments) -> EvaluationSetup:
    return open_trained(sources, data_args, how)


def _check_adapters(models: Sequence[str], names: Sequence[str], bases: Sequence[str | None]) -> None:
    for name, base in zip(names, bases, strict=True):
        if base != bases[0]:
            was = [
                f"{n!r} is " + (f"an adapter of {b!r}" if b else "no adapter")
                for n, b in ((names[0], bases[0]), (name, base))
            ]
            raise ValueError(f"{' and '.join(was)}: merge adapters of one base model, or whole networks.")
    first, *others = (_comparable(read_adapter(model).to_dict()) for model in models)
    for name, other in zip(names[1:], others, strict=True):
        for key, value in first.items():
            if other.get(key) != value:
                raise ValueError(
                    f"The adapters {names[0]!r} and {name!r} differ in their configuration: {key} is {value!r} and "
                    f"{other.get(key)!r}: merge adapters of one kind and size."
                )


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key not in _FREE}
    return {key: sorted(value) if isinstance(value, set) else value for key, value in kept.items()}


def _with_classes_of(first: ModelSource, other: ModelSource) -> ModelSource:
    """The other model as one of the first's classes: a head of another size is made anew, and no head is merged."""
    kept = {key: value for key, value in other.config.items() if key not in _CLASSES}
    return dataclasses.replace(other, config=kept | {k: v for k, v in first.config.items() if k in _CLASSES})


_CLASSES = ("label_names", "id2label", "num_classes", "num_labels")


def _head(model: nn.Module) -> list[str]:
    """Names of the tensors of a classifier's head: timm's classifier, or whatever is outside transformers' base model."""
    timm_model = getattr(model, "timm_model", None)
    if timm_model is not None:
        heads = timm_model.pretrained_cfg["classifier"]
        prefixes = [f"timm_model.{head}." for head in ([heads] if isinstance(heads, str) else heads)]
        return [name for name in model.state_dict() if name.startswith(tuple(prefixes))]
    return [name for name in model.state_dict() if not re.match(rf"{model.base_model_prefix}\.", name)]


def hub_ids(models: Sequence[str]) -> list[str]:
    """The Hub ids among models' names."""
    return [re.sub("^hf[-_]hub:", "", name) for name in models if not Path(name.removeprefix("local-dir:")).exists()]
