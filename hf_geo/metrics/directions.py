"""How each metric is read: its direction and its unit, for everything that ranks models."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is read.

    Args:
        higher_is_better: Whether a larger value is the better one.
        is_share: Whether it lies between 0 and 1 and is shown in per cent.
        is_quality: Whether it measures the model's predictions, rather than the speed of a run.
    """

    higher_is_better: bool
    is_share: bool = False
    is_quality: bool = True


# By the name without its split: "f1" is also the metric of "eval_f1" and "test_macro_f1". A task adds its own.
METRICS = {
    **dict.fromkeys(("accuracy", "f1", "precision", "recall", "roc_auc", "auroc"), Metric(True, is_share=True)),
    **dict.fromkeys(("matthews_correlation", "exact_match", "bleu"), Metric(True)),
    **dict.fromkeys(
        ("loss", "nll", "perplexity", "brier", "mae", "mse", "rmse", "fid", "frechet_distance"), Metric(False)
    ),
    **dict.fromkeys(
        ("ece", "error_rate", "total_variation", "disagreement", "aurc", "fpr95"), Metric(False, is_share=True)
    ),
    "runtime": Metric(False, is_quality=False),
    **dict.fromkeys(("samples", "samples_per_second", "steps_per_second"), Metric(True, is_quality=False)),
}


def find_metric(name: str) -> Metric | None:
    """Returns the entry of `METRICS` that `name` is or ends with after an underscore; None if there is none."""
    parts = name.split("_")
    suffixes = ("_".join(parts[start:]) for start in range(len(parts)))
    return next((METRICS[suffix] for suffix in suffixes if suffix in METRICS), None)


def nan_is_worst(value: float) -> tuple[bool, float]:
    """A key that orders losses from the best to the worst, with NaN behind all others."""
    return math.isnan(value), value


def higher_is_better(name: str) -> bool:
    """Returns whether a larger value of the metric is better.

    Args:
        name: With or without a split: "accuracy", "eval_accuracy", "test_macro_f1".

    Raises:
        ValueError: The metric is unknown, so that it cannot be said which of two models is better.
    """
    metric = find_metric(name)
    if metric is None:
        near = difflib.get_close_matches(name.removeprefix("eval_").removeprefix("test_"), METRICS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"It is not known whether a high or a low {name!r} is better.{hint} Choose a metric among {', '.join(METRICS)}, or "
            "add it to hf_geo.metrics.METRICS."
        )
    return metric.higher_is_better


def is_share(name: str) -> bool:
    """Returns whether the metric is known to lie between 0 and 1, to be shown in per cent."""
    metric = find_metric(name)
    return metric is not None and metric.is_share


def is_quality(name: str) -> bool:
    """Returns whether the metric is known to measure predictions."""
    metric = find_metric(name)
    return metric is not None and metric.is_quality


def main_metric(measured: Sequence[str], *splits: str) -> str:
    """Returns the metric by which a model is judged: the first one of the first split that has one besides its loss.

    Args:
        measured: Names of all that was measured, in order, such as "eval_accuracy".
        splits: Splits in order of preference, such as "test", "eval".

    Raises:
        ValueError: Nothing but speeds was measured on these splits.
    """
    found = [name for split in splits for name in measured if name.startswith(f"{split}_") and is_quality(name)]
    if not found:
        raise ValueError(f"Nothing was measured on {' or '.join(splits)}, so there is no metric to judge by.")
    return next((name for name in found if not name.endswith("_loss")), found[0])
