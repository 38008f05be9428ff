"""What a finished run says about itself: its results and settings as plain data, and as JSON files."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Metrics shown as per cent; the rest are shown as numbers.
_SHARES = ("accuracy",)


@dataclass(frozen=True)
class RunReport:
    """A finished run as plain data.

    Args:
        task: The Hub's name of the task.
        optimizer: The optimizer's name.
        dataset_name: The data set as people call it.
        dataset_id: Its Hub id; None where it has none.
        results: Measured values by split and metric, such as {"test": {"accuracy": 0.98, "loss": 0.07}}.
        samples: How many samples each split has; None for a stream to train on.
        settings: What the card's table shows.
        figures: Pictures, as paths inside the folder, with their captions.
        steps: Updates made.
        epochs: Passes over the training data.
        seconds: Training time.
        hardware: What it ran on, in words.
        parameters: Number of the model's parameters.
        library: What opens the model first: "timm" (and then transformers too) or "transformers".
        paper: The optimizer's paper (`title`, `url`, `arxiv`, `bibtex`), if it is one of this package's methods.
        subspace: The settings of the subspace (`kind`, `num_points`, `layerwise`), if one was trained.
        hub_id: Where the run will be pushed to, if known.
        base_model: Hub id of the pretrained weights, if any.
    """

    task: str
    optimizer: str
    dataset_name: str
    dataset_id: str | None
    results: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, int | None]
    settings: Mapping[str, Any]
    figures: Mapping[str, str]
    steps: int
    epochs: float
    seconds: float
    hardware: str
    parameters: int
    library: str
    paper: Any = None
    subspace: Any = None
    hub_id: str | None = None
    base_model: str | None = None

    @property
    def final_split(self) -> str:
        """The split whose figures count: "test" where there is one."""
        return "test" if "test" in self.results else "eval"

    def shown(self, metric: str) -> str:
        """A final figure for people."""
        value = self.results[self.final_split][metric]
        return f"{100 * value:.2f} %" if metric in _SHARES else f"{value:.4g}"

    @property
    def evaluated_on(self) -> str:
        """Words for where the final figures were measured."""
        count = self.samples.get(self.final_split)
        return f"the {self.final_split} split of {self.dataset_name}" + (f" ({count:,} samples)" if count else "")


def write_results(folder: str | Path, **results: Mapping[str, Any] | Sequence[Any]) -> None:
    """Writes each result as NAME.json into `folder`, what is not finite as null: JSON has no NaN."""
    for name, values in results.items():
        text = json.dumps(finite(values), indent=2, sort_keys=True, default=str, allow_nan=False) + "\n"
        (Path(folder) / f"{name}.json").write_text(text, encoding="utf-8")


def finite(values: Any) -> Any:
    """The same values, with None for every number that is not finite."""
    if isinstance(values, Mapping):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
