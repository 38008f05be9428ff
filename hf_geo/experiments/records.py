"""A sweep's folder: what became of each trial, on disk the moment it is known."""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .plan import LINES, Trial, as_number
from .recipes import differences

RUNNING, FINISHED, DIVERGED, FAILED = "running", "finished", "diverged", "failed"
RECORD, LOG, RUN = "trial.json", "log.txt", "run"


class Records:
    """The trials of a sweep, one folder each: `trial.json`, `log.txt` and the run itself in `run`.

    A trial that ended in whatever way is not run again; one that was under way when the sweep was stopped is.

    Args:
        folder: Of the sweep.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def place(self, trial: Trial) -> Path:
        """The trial's folder."""
        return self.folder / "trials" / trial.name

    def of(self, trial: Trial) -> dict[str, Any] | None:
        """What became of a trial; None if it has not been run to an end.

        Raises:
            ValueError: It was run with other settings.
        """
        path = self.place(trial) / RECORD
        if not path.exists():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["state"] == RUNNING:
            return None
        if changed := differences(record["settings"], trial.settings):
            raise ValueError(
                f"The sweep in {str(self.folder)!r} was made with other settings ({'; '.join(changed)}): choose another --output_dir."
            )
        return record

    def begin(self, trial: Trial) -> Path:
        """Makes an empty folder for a trial that is about to run."""
        place = self.place(trial)
        if place.exists():
            shutil.rmtree(place)
        place.mkdir(parents=True)
        self._write(trial, {"state": RUNNING})
        return place

    def end(self, trial: Trial, state: str, error: str | None) -> dict[str, Any]:
        """Records how a trial ended.

        Args:
            trial: The trial.
            state: FINISHED, DIVERGED or FAILED.
            error: What was wrong, in a sentence; None if its run is complete.
        """
        if error is not None:
            return self._write(trial, {"state": state, "error": error})
        run = self.place(trial) / RUN
        metrics = {}
        for name in ("train_results", "eval_results"):
            metrics |= json.loads((run / f"{name}.json").read_text(encoding="utf-8"))
        # Finite weights may still give losses that are none: such a network has no place among the finished.
        losses = [value for name, value in metrics.items() if name.endswith("_loss")]
        if not all(map(math.isfinite, losses)):
            return self._write(trial, {"state": DIVERGED, "error": "Its loss is not finite.", "metrics": metrics})
        return self._write(trial, {"state": state, "metrics": metrics})

    def _write(self, trial: Trial, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a record whole or not at all."""
        record = {"values": dict(trial.values), **outcome, "settings": dict(trial.settings)}
        path = self.place(trial) / RECORD
        new = path.with_suffix(".new")
        new.write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
        os.replace(new, path)
        return json.loads(path.read_text(encoding="utf-8"))

    def trials(self, axes: Mapping[str, Sequence[str]], make: Callable[[Mapping[str, Any]], Trial]) -> list[Trial]:
        """All trials of the folder that ended, those of earlier calls with other values included.

        Args:
            axes: The sweep's fields, with the values whose order optimizers and variants keep.
            make: The trial of given values.

        Raises:
            ValueError: Some are of a sweep over other fields, or were made with other settings.
        """
        found = []
        for path in sorted(self.folder.glob(f"trials/*/{RECORD}")):
            values = json.loads(path.read_text(encoding="utf-8"))["values"]
            if set(values) != set(axes):
                raise ValueError(
                    f"{str(self.folder)!r} holds a sweep over {', '.join(values)}, not over {', '.join(axes)}: choose another "
                    "--output_dir."
                )
            trial = make(values)
            if self.of(trial):
                found.append(trial)
        return sorted(
            found, key=lambda trial: [_place(field, trial.values[field], list(axes[field])) for field in axes]
        )

    def table(self, trials: Iterable[Trial]) -> pd.DataFrame:
        """Trials that ended, a row each: their values, state, error and metrics."""
        rows = []
        for trial in trials:
            record = self.of(trial)
            row = {"state": record["state"], "error": record.get("error"), **record.get("metrics", {})}
            rows.append({**trial.values, **row, "folder": str(self.place(trial).relative_to(self.folder) / RUN)})
        return pd.DataFrame(rows)


def _place(field: str, value: Any, given: list[Any]) -> tuple[int, float, str]:
    """Sorts optimizers and variants as they were given, everything else by number or name."""
    if field in LINES:
        return (given.index(value) if value in given else len(given)), 0.0, str(value)
    return 0, as_number(value) or 0.0, str(value)
