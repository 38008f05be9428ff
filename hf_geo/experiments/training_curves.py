"""The accuracy of training batches in the last epoch of a sweep's trials, from their logs (`--log_accuracy`)."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

METRIC, RATE = "training_accuracy", "learning_rate"


def read_last_epoch(run: Path) -> pd.Series:
    """Reads what a run logged in its last epoch: shares of right predictions by update; empty if it logged none."""
    path = run / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"log_history": []}
    rows = [row for row in state["log_history"] if METRIC in row]
    rows = [row for row in rows if row["epoch"] > rows[-1]["epoch"] - 1]
    return pd.Series({row["step"]: row[METRIC] for row in rows}, dtype=float)


def join_rates(table: pd.DataFrame, folder: Path, axes: Sequence[str]) -> pd.DataFrame:
    """Joins trials that differ in the learning rate alone: at each update the largest accuracy of them counts.

    The value is the mean of these over the last epoch, as in figure 3 (left) of Bernstein et al. 2020 (arXiv 2002.03432). It is
    theirs where every update is logged (`--logging_steps 1`); of coarser logs it is at most that.

    Args:
        table: The trials, with `training_accuracy`, as `Records.table` returns them.
        folder: The sweep's.
        axes: The sweep's axes.

    Returns:
        A row a group of trials: its first that finished, else its first.
    """
    others = [axis for axis in axes if axis != RATE]
    rows = []
    for _, group in table.groupby(others, sort=False, dropna=False):
        curves = [read_last_epoch(folder / run) for run in group["folder"]]
        first = group.loc[group[METRIC].first_valid_index() or group.index[0]]
        rows.append({**first, METRIC: pd.concat(curves, axis=1).max(axis=1).mean()})
    return pd.DataFrame(rows).drop(columns=RATE)
