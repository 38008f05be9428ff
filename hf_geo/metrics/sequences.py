"""Measures of sequences that are right as a whole or not, by their sizes."""

import numpy as np
from transformers import EvalPrediction


def sequence_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """The share of sequences that are right in every bit, of all and by size, and the mean loss a sequence.

    Args:
        prediction: Of each sequence its loss, whether it is right, its length and its repeats, (sequences, 4).

    Returns:
        `sequence_accuracy`, `loss` (summed over a sequence's steps and bits, in nats) and `samples`; for each size
        `sequence_accuracy/length=2,repeats=1` and so on.
    """
    losses, right, *sizes = np.asarray(prediction.predictions, dtype=np.float64).T
    sizes = np.stack(sizes, axis=1).astype(int)
    found = {"sequence_accuracy": float(right.mean()), "loss": float(losses.mean()), "samples": len(losses)}
    for length, repeats in np.unique(sizes, axis=0).tolist():
        chosen = (sizes == (length, repeats)).all(1)
        found[f"sequence_accuracy/length={length},repeats={repeats}"] = float(right[chosen].mean())
    return found
