"""Optuna chooses what a sweep tries next."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from .plan import LINES, SEED, grid, is_range

JOURNAL = "optuna.log"
Asked = tuple[optuna.Study, int]  # a trial of Optuna's


def as_distribution(field: str, values: Sequence[str]) -> BaseDistribution:
    """What Optuna draws from: one of the values, or a number between LOW and HIGH.

    Whole numbers are drawn uniformly; others uniformly in their logarithm where both ends are above zero.

    Raises:
        ValueError: A range that is empty, or stands beside other values.
    """
    if not is_range(values):
        return CategoricalDistribution(list(values))
    if len(values) > 1:
        raise ValueError(f"{field} has a range beside other values ({', '.join(values)}): give one or the other.")
    low, high = values[0].split(":")
    if float(low) >= float(high):
        raise ValueError(f"The range {values[0]} of {field} is empty: give it as LOW:HIGH.")
    if (low + high).isdigit() and field != "learning_rate":
        return IntDistribution(int(low), int(high))
    return FloatDistribution(float(low), float(high), log=float(low) > 0)


class Search:
    """A study for each optimizer or variant, so that all are given equally many trials; kept in the sweep's folder.

    Args:
        axes: The fields, with the values or the range of each.
        trials: For each optimizer or variant.
        folder: Of the sweep.
        maximize: Whether the metric is better when higher.

    Raises:
        ValueError: There is nothing to search over, or the folder holds a search over something else.
    """

    def __init__(self, axes: Mapping[str, Sequence[str]], trials: int, folder: Path, *, maximize: bool) -> None:
        self.space = {field: as_distribution(field, values) for field, values in axes.items() if field not in LINES}
        if not self.space or SEED in self.space:
            raise ValueError(
                "--trials searches over learning rates and other fields, not over optimizers or seeds alone."
            )
        self.trials = trials
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
        storage = optuna.storages.JournalStorage(backend)
        self.studies = []
        for line in grid({field: values for field, values in axes.items() if field in LINES}):
            study = optuna.create_study(
                storage=storage,
                study_name=json.dumps(line),
                load_if_exists=True,
                direction="maximize" if maximize else "minimize",
            )
            space = {field: list(axes[field]) for field in self.space}
            if study.user_attrs.get("space", space) != space:
                raise ValueError(f"{str(folder)!r} holds a search over other values: choose another --output_dir.")
            study.set_user_attr("space", space)
            # Another seed than before, or the random trials at the start would come a second time.
            study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), constant_liar=True)
            self.studies.append((line, study))

    @property
    def total(self) -> int:
        """How many trials there will have been."""
        return sum(max(self.trials, len(study.trials)) for _, study in self.studies)

    def points(self) -> Iterator[tuple[Asked, dict[str, Any]]]:
        """What to try, one after the other; first all that was tried before, of which nobody heard the end yet or did."""
        for line, study in self.studies:
            for trial in study.trials:
                yield (study, trial.number), {**line, **trial.params}
        for number in range(self.trials):
            for line, study in self.studies:
                if len(study.trials) <= number:
                    trial = study.ask(self.space)
                    yield (study, trial.number), {**line, **trial.params}

    def tell(self, asked: Asked, metric: float | None) -> None:
        """Says what came out; None for a trial without figures."""
        study, number = asked
        study.tell(number, metric, state=TrialState.FAIL if metric is None else None, skip_if_finished=True)
