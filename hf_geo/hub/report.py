"""What a finished run says about itself: results, settings, the training figure and the model card."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .card import card_metadata, render_card

# Metrics shown as per cent; the rest are shown as numbers.
_SHARES = ("accuracy",)
SUBSPACE_TAGS = ("neural-network-subspace", "arxiv:2102.10472")


@dataclass(frozen=True)
class RunReport:
    """A finished run as plain data.

    Args:
        task: The Hub's name of the task.
        optimizer: The optimizer's name.
        dataset_name: The data set as people call it.
        dataset_id: Its Hub id; None where it has none.
        results: Measured values by split and metric, such as {"test": {"accuracy": 0.98, "loss": 0.07}}.
        samples: How many samples each split has; None for a stream.
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


def write_card(folder: str | Path, report: RunReport, *, template: str, name: str, fields: Mapping[str, Any]) -> None:
    """Writes `README.md` into `folder`.

    Args:
        folder: The run's folder.
        report: What was done and measured.
        template: The card's template.
        name: The model's name.
        fields: What the template names about the task.
    """
    paper = report.paper
    final = report.results[report.final_split]
    metadata = card_metadata(
        name=name,
        task=report.task,
        tags=[
            report.optimizer,
            *([f"arxiv:{paper.arxiv}"] if paper else []),
            *(SUBSPACE_TAGS if report.subspace else ()),
        ],
        dataset_name=report.dataset_name,
        dataset_id=report.dataset_id,
        split=report.final_split,
        results=final,
        library=report.library,
        base_model=report.base_model,
    )
    seconds = round(report.seconds)
    card = render_card(
        template,
        metadata,
        {
            "name": name,
            "split": report.final_split,
            "results": [{"name": metric, "shown": report.shown(metric)} for metric in final],
            "evaluated_on": report.evaluated_on,
            "figures": [{"path": path, "caption": caption} for path, caption in report.figures.items()],
            "settings": report.settings,
            "optimizer": report.optimizer,
            "subspace": report.subspace,
            "paper": paper,
            "dataset": report.dataset_name,
            "steps": f"{report.steps:,}",
            "epochs": f"{report.epochs:.3g}",
            "train_samples": f"{report.samples['train']:,}" if report.samples.get("train") else None,
            "duration": f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s",
            "hardware": report.hardware,
            "parameters": f"{report.parameters:,}",
            "library": report.library,
            "hub_id": report.hub_id,
            **fields,
        },
    )
    (Path(folder) / "README.md").write_text(card, encoding="utf-8")


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
