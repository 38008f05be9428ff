"""The report of a finished run: its results and settings as plain data, and as JSON files."""

import dataclasses
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_geo.checkpoints.placing import whole_file
from hf_geo.errors import in_words
from hf_geo.metrics import is_share

CARD = "card"  # .json: the content of the card and of the figures, besides the Trainer's log


@dataclass(frozen=True)
class RunReport:
    """A finished run as plain data.

    Args:
        name: The model's name.
        task: The Hub's name of the task.
        metric: The task's main metric.
        optimizer: The optimizer's name.
        dataset_name: The data set's name for people.
        dataset_id: Its Hub id; None where it has none.
        results: Measured values by split and metric, such as {"test": {"accuracy": 0.98, "loss": 0.07}}; None for a value
            that is not finite. Empty where the evaluation failed.
        samples: How many samples each split has; None for a stream to train on.
        settings: The settings in the card's table.
        steps: Updates made.
        epochs: Passes over the training data.
        seconds: Training time.
        hardware: The machine, in words.
        parameters: Number of the model's parameters.
        versions: Of the packages it was trained with.
        library: The library that opens the model: "timm" (transformers opens it too) or "transformers".
        template: The card's template.
        fields: The template's fields about the task.
        paper: The optimizer's paper (`title`, `url`, `arxiv`, `bibtex`), if it is one of this package's methods.
        subspace: The settings of the subspace (`kind`, `num_points`, `layerwise`), if one was trained.
        hub_id: The repository that the run will be pushed to, if known.
        base_model: Hub id of the pretrained weights, if any.
    """

    name: str
    task: str
    metric: str
    optimizer: str
    dataset_name: str
    dataset_id: str | None
    results: Mapping[str, Mapping[str, float | None]]
    samples: Mapping[str, int | None]
    settings: Mapping[str, Any]
    steps: int
    epochs: float
    seconds: float
    hardware: str
    parameters: int
    versions: Mapping[str, str]
    library: str
    template: str
    fields: Mapping[str, Any]
    paper: Mapping[str, Any] | None = None
    subspace: Mapping[str, Any] | None = None
    hub_id: str | None = None
    base_model: str | None = None

    @property
    def final_split(self) -> str:
        """The split of the final figures: "test" where there is one."""
        return "test" if "test" in self.results else "eval"

    def shown(self, metric: str) -> str:
        """A final figure for people."""
        value = self.results[self.final_split][metric]
        if value is None or not math.isfinite(value):
            return "not finite"
        return f"{100 * value:.2f} %" if is_share(metric) else f"{value:.4g}"

    @property
    def evaluated_on(self) -> str:
        """Describes the data that the final figures were measured on."""
        count = self.samples.get(self.final_split)
        return f"the {self.final_split} split of {self.dataset_name}" + (f" ({count:,} samples)" if count else "")

    def summary(self, folder: str, how_to_load: str, described: Collection[str]) -> str:
        """Describes the result, where it is, and how to open it.

        Args:
            folder: The run's folder.
            how_to_load: A line of Python that opens the folder.
            described: Figures and card, as paths inside the folder.
        """
        opens = "timm and transformers" if self.library == "timm" else "transformers"
        lines = [
            f"{self.metric} {self.shown(self.metric)} on {self.evaluated_on}, after {self.seconds:.0f} s of training",
            f"  weights:     {folder}/model.safetensors with config.json: opens in {opens}",
            f"  results:     {folder}/eval_results.json, train_results.json, trainer_state.json",
            *(f"  described:   {folder}/{name}" for name in described),
            f"  load it:     {how_to_load}",
        ]
        return "\n".join(lines)


def write_measured(
    folder: str | Path, report: RunReport, measured: Mapping[str, Mapping[str, float]], trainer_state: Mapping[str, Any]
) -> None:
    """Writes the figures of an evaluation beside the network, and the report as card.json for `read_report`.

    Args:
        folder: The run's folder.
        report: Of the run.
        measured: Figures by split; their names begin with the split's.
        trainer_state: At the end of the evaluation.

    Raises:
        RuntimeError: The disk refused. The message has the figures.
    """
    results = {name: value for values in measured.values() for name, value in values.items()}
    try:
        write_results(folder, eval_results=results, trainer_state=trainer_state, **{CARD: dataclasses.asdict(report)})
    except OSError as error:
        raise RuntimeError(
            f"The network is complete in {str(folder)!r}, but its results could not be written there ({in_words(error)}): "
            f"they are {json.dumps(finite(results))}."
        ) from error


def read_report(folder: str | Path) -> RunReport:
    """Reads the report of a finished run.

    Raises:
        ValueError: There is none, or it is damaged.
    """
    path = Path(folder, f"{CARD}.json")
    try:
        return RunReport(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ValueError(
            f"{str(folder)!r} is no folder of a run that was evaluated, as it holds no {path.name}: give one of scripts/train.py."
        ) from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{str(path)!r} does not describe a run ({error}): copy it again, or train anew.") from error


def write_results(folder: str | Path, **results: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes each result as NAME.json into `folder`; numbers that are not finite become null, for JSON has no NaN."""
    for name, values in results.items():
        # The card shows settings and figures in the order they are given in.
        text = json.dumps(finite(values), indent=2, sort_keys=name != CARD, default=str, allow_nan=False) + "\n"
        with whole_file(Path(folder, f"{name}.json")) as path:
            path.write_text(text, encoding="utf-8")


def finite(values: Any) -> Any:
    """Replaces every number that is not finite by None."""
    if isinstance(values, Mapping):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
