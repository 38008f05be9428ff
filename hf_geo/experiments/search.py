"""Optuna proposes the trials of a sweep."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from .trials import SEED, SERIES, MakeTrial, Trial, combinations, is_range

JOURNAL = "optuna.log"
Key = tuple[optuna.Study, int]  # a trial in Optuna's own numbering


class Search:
    """A study of Optuna for each optimizer or variant, so that all get equally many trials; kept in the sweep's folder.

    Args:
        axes: The values or the range of each axis.
        num_trials: Trials for each optimizer or variant.
        folder: The sweep's folder.
        make: Makes a trial of its values.
        maximize: Whether a higher metric is better.

    Raises:
        ValueError: There is nothing to search over, or the folder holds a search over something else.
    """

    def __init__(
        self, axes: Mapping[str, Sequence[str]], num_trials: int, folder: Path, make: MakeTrial, *, maximize: bool
    ) -> None:
        self.space = {field: as_distribution(field, values) for field, values in axes.items() if field not in SERIES}
        if not self.space or SEED in self.space:
            raise ValueError(
                "--trials searches over learning rates and other fields, not over optimizers or seeds alone."
            )
        self.num_trials, self.make = num_trials, make
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
        storage = optuna.storages.JournalStorage(backend)
        self.studies = []
        for values in combinations({field: values for field, values in axes.items() if field in SERIES}):
            study = optuna.create_study(
                storage=storage,
                study_name=json.dumps(values),
                load_if_exists=True,
                direction="maximize" if maximize else "minimize",
            )
            space = {field: list(axes[field]) for field in self.space}
            if study.user_attrs.get("space", space) != space:
                raise ValueError(f"{str(folder)!r} holds a search over other values: choose another --output_dir.")
            study.set_user_attr("space", space)
            # The seed differs from that of the earlier call, or its random first trials would be proposed again.
            study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), constant_liar=True)
            self.studies.append((values, study))
        self.total = sum(max(num_trials, len(study.trials)) for _, study in self.studies)

    def proposals(self) -> Iterator[tuple[Key, Trial]]:
        """Yields the trials of earlier calls, whose results may not have been reported, and then new ones."""
        for values, study in self.studies:
            for proposed in study.trials:
                yield (study, proposed.number), self.make({**values, **proposed.params})
        for number in range(self.num_trials):
            for values, study in self.studies:
                if len(study.trials) <= number:
                    proposed = study.ask(self.space)
                    yield (study, proposed.number), self.make({**values, **proposed.params})

    def report(self, key: Key, value: float | None) -> None:
        """Reports the metric that a trial reached; None if it did not finish."""
        study, number = key
        study.tell(number, value, state=TrialState.FAIL if value is None else None, skip_if_finished=True)


def as_distribution(field: str, values: Sequence[str]) -> BaseDistribution:
    """Returns what Optuna draws from: one of the values, or a number between LOW and HIGH.

    Whole numbers are drawn uniformly; others uniformly in their logarithm if both ends are above zero.

    Raises:
        ValueError: A range is empty, or stands beside other values.
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
