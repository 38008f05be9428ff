"""Trains one recipe at many settings and shows what came out: optimizers x learning rates (or any fields) x seeds.

    python scripts/sweep.py --config configs/quickstart.yaml --optims fromage,sgd,adamw_torch --lrs 1,0.1,0.01,0.001
    python scripts/sweep.py --config configs/fromage/cifar10.yaml --variants fromage,sgd,adam --lrs 1,0.1,0.01 --seeds 0,1,2
    python scripts/sweep.py --config configs/quickstart.yaml --optims fromage --lrs 0.0001:1 --trials 20

Every option of train.py may follow, for all trials alike. Started again with the same --output_dir, a sweep goes on: a
trial that has ended is not run again (remove its folder under trials/ to do so), one that was under way is. A trial that
fails or diverges is recorded as such and ends nothing. Trials keep no checkpoints: the last weights are what is measured.
"""

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from hf_geo.data.config import DataArguments
from hf_geo.experiments.plan import SEED, VARIANT, Trial, grid, make_trial, read_list
from hf_geo.experiments.records import FINISHED, LOG, RUN, Records
from hf_geo.experiments.summary import choose_metric, failures
from hf_geo.experiments.workers import run_all
from hf_geo.models.config import ModelArguments
from hf_geo.training.arguments import GeoTrainingArguments, RunArguments, SubspaceArguments
from hf_geo.training.config import make_parser, parse_command_line
from hf_geo.training.runs import public_settings
from hf_geo.training.user_errors import one_sentence_errors

KINDS = (ModelArguments, DataArguments, SubspaceArguments, RunArguments, GeoTrainingArguments)
TRAIN = Path(__file__).with_name("train.py")
TRIALS = ("--save_strategy=no", "--load_best_model_at_end=false", "--disable_tqdm=true")  # what trials do otherwise
TABLE, FIGURE, REPORT = "trials", "figure.png", "sweep.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    with one_sentence_errors("sweep.py"):
        options, words = parse(argv)
        axes = find_axes(options)
        folder = Path(options.output_dir or Path("outputs") / f"sweep-{Path(options.config).stem}")
        trials = [make_trial(point, words, resolve) for point in grid(axes)]
        records = Records(folder)
        ended = [trial for trial in trials if records.of(trial)]
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            raise ValueError(
                f"Another sweep is running in {str(folder)!r}: wait for it, or choose another --output_dir."
            ) from None
    with lock:
        run(trials, ended, records, options)
        return report(trials, records, axes, options, words)


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The sweep's own options, and the words that every trial is given."""
    parser = argparse.ArgumentParser(
        "sweep.py",
        "sweep.py --config FILE [--optims A,B] [--lrs X,Y] [--grid FIELD VALUE ...] [--OPTION_OF_TRAIN VALUE ...]",
        __doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="The recipe.")
    add("--variants", metavar="A,B", help="Variants of the recipe.")
    add("--optims", metavar="A,B", help="Optimizers.")
    add("--lrs", metavar="X,Y", help="Learning rates.")
    add("--seeds", metavar="N,M", help="Seeds; the figure shows means over them.")
    add("--grid", action="append", nargs="+", default=[], metavar="FIELD", help="Any other field, then its values.")
    add("--x", default="learning_rate", metavar="FIELD", help="What the figure shows along its horizontal axis.")
    add("--metric", metavar="NAME", help="What ranks trials. Default: the task's own on the evaluation split.")
    add("--jobs", type=int, default=1, metavar="N", help="Trials at once, each in a process (and on a GPU) of its own.")
    add("--title", metavar="TEXT", help="Title of the figure.")
    add("--output_dir", metavar="DIR", help="The sweep's folder. Default: outputs/sweep-RECIPE.")
    options, rest = parser.parse_known_args(argv)
    if options.jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {options.jobs}.")
    return options, [f"--config={options.config}", *TRIALS, *rest]


def find_axes(options: argparse.Namespace) -> dict[str, list[str]]:
    """The fields to sweep over, with their values."""
    named = {VARIANT: "variants", "optim": "optims", "learning_rate": "lrs", SEED: "seeds"}
    axes = {
        field: read_list(f"--{option}", getattr(options, option))
        for field, option in named.items()
        if getattr(options, option) is not None
    }
    known = {action.dest for action in make_parser(KINDS)._actions if action.option_strings}
    for field, *values in options.grid:
        if field not in known:
            near = difflib.get_close_matches(field, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"There is no field {field!r} to sweep over{hint}")
        if not values:
            raise ValueError(f"--grid {field} names no value, so there is nothing to try.")
        if field in axes:
            raise ValueError(f"{field} is swept over twice: name all its values once.")
        axes[field] = values
    if not axes:
        raise ValueError("There is nothing to sweep over: give --optims, --lrs, --seeds, --variants or --grid.")
    if options.x not in axes:
        raise ValueError(f"--x is {options.x}, which is not swept over: it is one of {', '.join(axes)}.")
    return axes


def resolve(words: Sequence[str]) -> dict[str, Any]:
    """All settings of a trial that may be shown.

    Raises:
        ValueError: They cannot be used.
    """
    *settings, chosen = parse_command_line(KINDS, words, prog="sweep.py", usage="sweep.py --config FILE ...")
    return public_settings(*settings) | {VARIANT: chosen.variant}


def run(trials: Sequence[Trial], ended: Sequence[Trial], records: Records, options: argparse.Namespace) -> None:
    """Runs what has not been run, with a progress bar over trials."""
    names = {trial.name for trial in ended}

    def calls() -> Iterable[tuple[Trial, tuple[str, tuple[str, ...], str]]]:
        for trial in trials:
            if trial.name not in names:
                names.add(trial.name)  # the same point twice is one trial
                place = records.begin(trial)
                yield trial, (str(TRAIN), (*trial.words, f"--output_dir={place / RUN}"), str(place / LOG))

    with tqdm(total=len({trial.name for trial in trials}), initial=len(names), desc="trials", unit="trial") as bar:
        for trial, error in run_all(calls(), options.jobs):
            record = records.end(trial, error)
            bar.update()
            bar.write(f"{trial.name}: {said(record, options.metric)}", file=sys.stderr)


def said(record: dict[str, Any], metric: str | None) -> str:
    """A trial's outcome in a few words."""
    if "metrics" not in record:
        return f"{record['state']}: {record['error']}"
    name = choose_metric(list(record["metrics"]), metric)
    return f"{record['state']}, {name} {record['metrics'][name]:.4g}, {record['metrics']['train_runtime']:.0f} s"


def report(
    trials: Sequence[Trial], records: Records, axes: Sequence[str], options: argparse.Namespace, words: Sequence[str]
) -> int:
    """Writes table, figure and report; returns the exit status."""
    table, folder = records.table(trials), records.folder
    table.to_parquet(folder / f"{TABLE}.parquet", index=False)
    table.to_csv(folder / f"{TABLE}.csv", index=False)
    lost = failures(table, list(axes))
    if not (table.state == FINISHED).any():
        print(f"sweep.py: error: No trial of {len(table)} came to an end. {lost[0]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
