"""The folder of a sweep: the outcome of each trial, written to disk as soon as it is known."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hf_geo.checkpoints.placing import whole_file
from hf_geo.metrics import is_quality
from hf_geo.runs.report import finite

from .runs import differences
from .training_curves import METRIC, read_last_epoch
from .trials import SERIES, Trial, format_value, parse_number

RUNNING, FINISHED, DIVERGED, FAILED = "running", "finished", "diverged", "failed"
RECORD, LOG, RUN = "trial.json", "log.txt", "run"


class Records:
    """The trials of a sweep, a folder each: `trial.json`, `log.txt` and the run itself in `run`.

    A trial that has ended, in whatever state, is not run again; one that was still running when the sweep was stopped is.

    Args:
        folder: The sweep's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def folder_of(self, trial: Trial) -> Path:
        """Returns the trial's folder."""
        return self.folder / "trials" / trial.name

    def read(self, trial: Trial) -> dict[str, Any] | None:
        """Reads a trial's record, with the mean `training_accuracy` of its last epoch if it logged that; None if it has not ended.

        Raises:
            ValueError: It was run with other settings.
        """
        path = self.folder_of(trial) / RECORD
        if not path.exists():
            return None
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["state"] == RUNNING:
            return None
        if changed := differences(record["settings"], trial.settings):
            raise ValueError(
                f"The sweep in {str(self.folder)!r} was made with other settings ({'; '.join(changed)}): choose another --output_dir."
            )
        accuracies = read_last_epoch(self.folder_of(trial) / RUN)
        if "metrics" in record and len(accuracies):
            record["metrics"][METRIC] = accuracies.mean()
        return record

    def start(self, trial: Trial) -> Path:
        """Makes an empty folder for a trial that is about to run, and returns it."""
        folder = self.folder_of(trial)
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        self._write(trial, {"state": RUNNING})
        return folder

    def finish(self, trial: Trial, state: str, error: str | None) -> dict[str, Any]:
        """Records how a trial ended, and returns the record.

        Args:
            trial: The trial.
            state: FINISHED, DIVERGED or FAILED.
            error: What went wrong, in a sentence; None if its run is complete.
        """
        if error is not None:
            return self._write(trial, {"state": state, "error": error})
        metrics = {}
        for name in ("train_results", "eval_results"):
            path = self.folder_of(trial) / RUN / f"{name}.json"
            metrics |= json.loads(path.read_text(encoding="utf-8"))
        # Finite weights may still give a loss or perplexity that is not finite, for which JSON has null: such a trial must
        # not be ranked.
        lost = [name for name, value in finite(metrics).items() if value is None and is_quality(name)]
        if lost:
            return self._write(trial, {"state": DIVERGED, "error": f"Its {lost[0]} is not finite.", "metrics": metrics})
        self._write(trial, {"state": state, "metrics": metrics})
        return self.read(trial)

    def _write(self, trial: Trial, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Replaces a trial's record atomically."""
        record = {"values": dict(trial.values), **outcome, "settings": dict(trial.settings)}
        text = json.dumps(record, indent=2, default=str)
        with whole_file(self.folder_of(trial) / RECORD) as path:
            path.write_text(text + "\n", encoding="utf-8")
        return json.loads(text)

    def ended_trials(
        self, axes: Mapping[str, Sequence[str]], make: Callable[[Mapping[str, Any]], Trial]
    ) -> list[Trial]:
        """Lists the trials that have ended, including those of earlier calls with other values.

        Args:
            axes: The sweep's axes; optimizers and variants are listed in the order given here.
            make: Makes a trial of its values.

        Raises:
            ValueError: The folder holds a sweep over other axes or with other settings.
        """
        trials = []
        for path in sorted(self.folder.glob(f"trials/*/{RECORD}")):
            values = json.loads(path.read_text(encoding="utf-8"))["values"]
            if set(values) != set(axes):
                raise ValueError(
                    f"{str(self.folder)!r} holds a sweep over {', '.join(values)}, not over {', '.join(axes)}: choose another "
                    "--output_dir."
                )
            trial = make(values)
            if self.read(trial):
                trials.append(trial)
        return sorted(
            trials, key=lambda trial: [_sort_key(field, trial.values[field], list(axes[field])) for field in axes]
        )

    def table(self, trials: Sequence[Trial]) -> pd.DataFrame:
        """Returns trials that have ended as rows: their values, state, error, metrics and the folder of their run."""
        rows = []
        for trial in trials:
            record = self.read(trial)
            outcome = {"state": record["state"], "error": record.get("error"), **record.get("metrics", {})}
            run = self.folder_of(trial).relative_to(self.folder) / RUN
            rows.append({**trial.values, **outcome, "folder": str(run)})
        table = pd.DataFrame(rows)
        for field in trials[0].values if trials else ():
            if table[field].dtype == object:  # words beside numbers, for which Parquet has no type
                table[field] = table[field].map(format_value)
        return table


def _sort_key(field: str, value: Any, given: list[Any]) -> tuple[int, float, str]:
    """Sorts optimizers and variants in the order given, other values by number and then by text."""
    if field in SERIES:
        return (given.index(value) if value in given else len(given)), 0.0, str(value)
    return 0, parse_number(value) or 0.0, str(value)
