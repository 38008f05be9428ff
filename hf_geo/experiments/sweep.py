"""Runs the trials of a sweep that have not been run yet."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm

from .records import FINISHED, LOG, RUN, Records
from .summary import choose_metric
from .trials import MakeTrial, Trial, combinations
from .workers import Call, run_all


class Source(Protocol):
    """Proposes trials, each with a key under which its result is reported back."""

    total: int  # number of trials in the end

    def proposals(self) -> Iterator[tuple[Any, Trial]]: ...

    def report(self, key: Any, value: float | None) -> None: ...


class Grid:
    """Every combination of the axes' values.

    Args:
        axes: The values of each axis; combinations that lead to the same trial are tried once.
        make: Makes a trial of its values.
    """

    def __init__(self, axes: Mapping[str, Sequence[str]], make: MakeTrial) -> None:
        self.trials = {trial.name: trial for trial in map(make, combinations(axes))}
        self.total = len(self.trials)

    def proposals(self) -> Iterator[tuple[str, Trial]]:
        """Yields every trial with its name."""
        yield from self.trials.items()

    def report(self, key: str, value: float | None) -> None:
        """Takes a result, on which the grid does not depend."""


def run_trials(source: Source, records: Records, script: str | Path, metric: str | None, jobs: int) -> None:
    """Runs the trials that have no record yet, with a progress bar over trials.

    Args:
        source: Proposes the trials.
        records: Where their outcomes are and go.
        script: A script whose `main` trains, given the trial's arguments and `--output_dir`.
        metric: The metric to report; None for the task's main one.
        jobs: Trials at once.

    Raises:
        ValueError: A trial has finished without measuring `metric`, or an earlier one was run with other settings.
    """
    started = set()
    with tqdm(total=source.total, desc="trials", unit="trial") as bar:

        def calls() -> Iterator[tuple[tuple[Any, Trial], Call]]:
            for key, trial in source.proposals():
                record = records.read(trial)
                if record is None and trial.name not in started:
                    started.add(trial.name)
                    folder = records.start(trial)
                    arguments = (*trial.arguments, f"--output_dir={folder / RUN}")
                    yield (key, trial), (str(script), arguments, str(folder / LOG))
                else:  # recorded by an earlier call, or the same trial once more
                    source.report(key, value_of(record, metric))
                    bar.update()

        for (key, trial), outcome in run_all(calls(), jobs):
            record = records.finish(trial, *outcome)
            source.report(key, value_of(record, metric))
            bar.update()
            bar.write(f"{trial.name}: {describe_outcome(record, metric)}", file=sys.stderr)


def value_of(record: Mapping[str, Any] | None, metric: str | None) -> float | None:
    """Returns the metric that a trial reached; None if it has not finished.

    Raises:
        ValueError: It did not measure the metric.
    """
    if record is None or record["state"] != FINISHED:
        return None
    return record["metrics"][choose_metric(list(record["metrics"]), metric)]


def describe_outcome(record: Mapping[str, Any], metric: str | None) -> str:
    """Describes a trial's outcome in a few words."""
    if "error" in record:
        return f"{record['state']}: {record['error']}"
    name, seconds = choose_metric(list(record["metrics"]), metric), record["metrics"]["train_runtime"]
    return f"{record['state']}, {name} {record['metrics'][name]:.4g}, {seconds:.0f} s"
