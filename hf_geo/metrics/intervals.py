"""What the spread over seeds says: the interval of a mean, and whether two means differ by more than chance."""

import pandas as pd
from scipy import stats  # comes with scikit-learn

LEVEL = 0.95
WITHIN = ", within the interval"


def interval(mean: float, deviation: float, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a mean by Student's t.

    Args:
        mean: Mean over the seeds.
        deviation: Their standard deviation, with one degree of freedom taken off.
        count: Number of seeds, at least 2.
    """
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * deviation / count**0.5
    return mean - half, mean + half


def is_within_chance(first: pd.Series, second: pd.Series, metric: str) -> bool:
    """Whether the difference of two settings' means lies within its 95 % interval around zero (Welch's test).

    Args:
        first, second: Rows with the metric's mean, its "std" and its "count", at least 2.
        metric: Name of the mean.
    """
    samples = [value for row in (first, second) for value in (row[metric], row["std"], row["count"])]
    return not stats.ttest_ind_from_stats(*samples, equal_var=False).pvalue < 1 - LEVEL
