"""Trains one recipe at many settings and shows what came out: optimizers x learning rates (or any fields) x seeds.

    python scripts/sweep.py --config configs/quickstart.yaml --optims fromage,sgd,adamw_torch --lrs 1,0.1,0.01,0.001
    python scripts/sweep.py --config configs/fromage/sweep_cifar10.yaml --variants fromage,sgdm,adamw --lrs 1,0.1,0.01 --seeds 0,1,2
    python scripts/sweep.py --config configs/quickstart.yaml --optims fromage,sgd --lrs 0.0001:1 --trials 20

Every option of train.py may follow, for all trials alike. Started again with the same --output_dir, a sweep goes on: a
trial that has ended is not run again (remove its folder under trials/ to do so), one that was under way is; with other values
it grows, and figure and tables show all. A trial that fails or diverges is recorded as such and ends nothing. Trials keep no
checkpoints: the last weights are what is measured.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from hf_geo.cli.config import make_parser, parse_command_line
from hf_geo.cli.options import OptionParser, nearest
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.data.config import DataArguments
from hf_geo.experiments.plan import SEED, VARIANT, Trial, as_number, grid, is_range, make_trial, read_list, words_of
from hf_geo.experiments.recipes import origin
from hf_geo.experiments.records import FINISHED, LOG, RUN, Records
from hf_geo.experiments.report import FIGURE, ORIGIN, REPORT, describe_sweep
from hf_geo.experiments.summary import Summary, choose_metric, failures
from hf_geo.experiments.workers import run_all
from hf_geo.metrics import higher_is_better
from hf_geo.models.config import ModelArguments
from hf_geo.runs.folder import public_settings
from hf_geo.tasks import guess_task
from hf_geo.training.arguments import GeoTrainingArguments, RunArguments, SubspaceArguments

KINDS = (ModelArguments, DataArguments, SubspaceArguments, RunArguments, GeoTrainingArguments)
TRAIN = Path(__file__).with_name("train.py")
TRIALS = ("--save_strategy=no", "--load_best_model_at_end=false", "--disable_tqdm=true")  # what trials do otherwise
Tell = Callable[[Any, float | None], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    with one_sentence_errors("sweep.py"):
        options, words = parse(argv)
        axes = find_axes(options)
        folder = Path(options.output_dir or Path("outputs") / f"sweep-{Path(options.config).stem}")
        for field, values in axes.items():
            for value in values:
                resolve([*words, *words_of({field: value.split(":")[0] if is_range([value]) else value})])
        make, records = partial(make_trial, words=words, resolve=resolve), Records(folder)
        trials = [] if options.trials else [make(point) for point in grid(axes)]
        records.trials(axes, make)  # refuses a folder of other settings before anything runs
        folder.mkdir(parents=True, exist_ok=True)
        try:
            alone = FileLock(folder / ".lock", blocking=False).acquire()
        except Timeout:
            raise ValueError(f"Another sweep is running in {str(folder)!r}: choose another --output_dir.") from None
        if options.trials:
            points, tell, total = search(axes, words, folder, make, options)
        else:
            unique = {trial.name: trial for trial in trials}
            points, tell, total = ((None, trial) for trial in unique.values()), lambda asked, value: None, len(unique)
    with alone:
        run(points, tell, total, records, options)
        with one_sentence_errors("sweep.py"):
            return report(records.trials(axes, make), records, list(axes), words, options)


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The sweep's own options, and the words that every trial is given."""
    parser = OptionParser(
        "sweep.py",
        "sweep.py --config FILE [--optims A,B] [--lrs X,Y] [--grid FIELD VALUE ...] [--OPTION_OF_TRAIN VALUE ...]",
        __doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", required=True, metavar="FILE", help="The recipe.")
    add("--variants", metavar="A,B", help="Variants of the recipe.")
    add("--optims", metavar="A,B", help="Optimizers.")
    add("--lrs", metavar="X,Y", help="Learning rates, or with --trials LOW:HIGH.")
    add("--seeds", metavar="N,M", help="Seeds; the figure shows means over them.")
    add("--grid", action="append", nargs="+", default=[], metavar="FIELD", help="Any other field, then its values.")
    add("--trials", type=int, metavar="N", help="Let Optuna choose N settings for each optimizer, not the whole grid.")
    add("--x", default="learning_rate", metavar="FIELD", help="What the figure shows along its horizontal axis.")
    add("--metric", metavar="NAME", help="What ranks trials. Default: the task's own on the evaluation split.")
    add("--jobs", type=int, default=1, metavar="N", help="Trials at once, each in a process (and on a GPU) of its own.")
    add("--title", metavar="TEXT", help="Title of the figure and the report.")
    add("--output_dir", metavar="DIR", help="The sweep's folder. Default: outputs/sweep-RECIPE.")
    options, rest = parser.parse_known_args(argv)
    for name, least in (("jobs", options.jobs), ("trials", options.trials)):
        if least is not None and least < 1:
            raise ValueError(f"--{name} must be at least 1, not {least}.")
    if options.metric is not None:
        higher_is_better(options.metric)  # raises where that is not known
    if options.trials and importlib.util.find_spec("optuna") is None:
        raise ValueError("--trials needs Optuna: pip install 'hf_geo[sweep]'.")
    return options, [f"--config={options.config}", *TRIALS, *rest]


def find_axes(options: argparse.Namespace) -> dict[str, list[str]]:
    """The fields to sweep over, with their values."""
    named = {VARIANT: "variants", "optim": "optims", "learning_rate": "lrs", SEED: "seeds"}
    axes = {
        field: read_list(f"--{option}", getattr(options, option))
        for field, option in named.items()
        if getattr(options, option) is not None
    }
    known = [action.dest for action in make_parser(KINDS)._actions if action.option_strings]
    for field, *values in options.grid:
        if field not in known:
            near = " or ".join(map(repr, nearest(field, known)))
            raise ValueError(
                f"There is no field {field!r} to sweep over" + (f"; did you mean {near}?" if near else ".")
            )
        if not values:
            raise ValueError(f"--grid {field} names no value, so there is nothing to try.")
        if field in axes:
            raise ValueError(f"{field} is swept over twice: name all its values once.")
        axes[field] = values
    if not axes:
        raise ValueError("There is nothing to sweep over: give --optims, --lrs, --seeds, --variants or --grid.")
    if options.x not in axes:
        raise ValueError(f"--x is {options.x}, which is not swept over: choose one of {', '.join(axes)}.")
    if any(as_number(value.split(":")[0]) is None for value in axes[options.x]):
        raise ValueError(f"--x is {options.x}, whose values are no numbers ({', '.join(axes[options.x])}).")
    ranges = [field for field, values in axes.items() if is_range(values)]
    if ranges and not options.trials:
        raise ValueError(
            f"{ranges[0]} is given as a range, {axes[ranges[0]][0]}: say how many --trials N to make in it."
        )
    return axes


def resolve(words: Sequence[str]) -> dict[str, Any]:
    """All settings of a trial that may be shown.

    Raises:
        ValueError: They cannot be used.
    """
    *settings, chosen = parse_command_line(KINDS, words, prog="sweep.py", usage="sweep.py --config FILE ...")
    return public_settings(*settings) | {VARIANT: chosen.variant}


def search(
    axes: Mapping[str, Sequence[str]],
    words: Sequence[str],
    folder: Path,
    make: Callable[[Mapping[str, Any]], Trial],
    options: argparse.Namespace,
) -> tuple[Iterator[tuple[Any, Trial]], Tell, int]:
    """What Optuna wants to try, how it hears what came out, and how many trials there will be."""
    from hf_geo.experiments.search import Search  # Optuna is an extra

    if options.metric is None:
        model, data, _, run_args, *_ = parse_command_line(KINDS, words, prog="sweep.py")
        task = run_args.task or guess_task(model.model, data.dataset)
        options.metric = "eval_perplexity" if task == "causal-lm" else "eval_accuracy"
    found = Search(axes, options.trials, folder, maximize=higher_is_better(options.metric))
    points = ((asked, make(values)) for asked, values in found.points())
    return points, found.tell, found.total


def run(
    points: Iterable[tuple[Any, Trial]], tell: Tell, total: int, records: Records, options: argparse.Namespace
) -> None:
    """Runs what has not been run, with a progress bar over trials."""
    begun = set()
    with tqdm(total=total, desc="trials", unit="trial") as bar:

        def calls() -> Iterator[tuple[tuple[Any, Trial], tuple[str, tuple[str, ...], str]]]:
            for asked, trial in points:
                record = records.of(trial)
                if record is None and trial.name not in begun:
                    begun.add(trial.name)
                    place = records.begin(trial)
                    yield (asked, trial), (str(TRAIN), (*trial.words, f"--output_dir={place / RUN}"), str(place / LOG))
                else:  # from before, or the same point once more
                    tell(asked, value_of(record, options.metric))
                    bar.update()

        for (asked, trial), outcome in run_all(calls(), options.jobs):
            record = records.end(trial, *outcome)
            tell(asked, value_of(record, options.metric))
            bar.update()
            bar.write(f"{trial.name}: {said(record, options.metric)}", file=sys.stderr)


def value_of(record: Mapping[str, Any] | None, metric: str | None) -> float | None:
    """What a trial reached; None without figures."""
    if record is None or record["state"] != FINISHED:
        return None
    return record["metrics"][choose_metric(list(record["metrics"]), metric)]


def said(record: Mapping[str, Any], metric: str | None) -> str:
    """A trial's outcome in a few words."""
    if "error" in record:
        return f"{record['state']}: {record['error']}"
    name, seconds = choose_metric(list(record["metrics"]), metric), record["metrics"]["train_runtime"]
    return f"{record['state']}, {name} {record['metrics'][name]:.4g}, {seconds:.0f} s"


def report(
    trials: Sequence[Trial], records: Records, axes: list[str], words: Sequence[str], options: argparse.Namespace
) -> int:
    """Writes table, figure and report; returns the exit status."""
    table, folder = records.table(trials), records.folder
    table.to_parquet(folder / "trials.parquet", index=False)
    table.to_csv(folder / "trials.csv", index=False)
    if not (table.state == FINISHED).any():
        print(f"sweep.py: error: No trial came to an end: {failures(table, axes)[0]}", file=sys.stderr)
        return 1
    summary = Summary(table, axes, choose_metric(list(table.columns), options.metric), options.x)
    title = options.title or f"{Path(options.config).stem}: a sweep over {options.x.replace('_', ' ')}"
    summary.draw(folder / FIGURE, title)
    given = parse_command_line(KINDS, words, prog="sweep.py")[-1].given - {
        word.split("=")[0].strip("-") for word in TRIALS
    }
    text = describe_sweep(title, options.config, trials, given | {"seed"}, axes, summary, failures(table, axes))
    (folder / REPORT).write_text(text, encoding="utf-8")
    (folder / ORIGIN).write_text(json.dumps(origin(options.config, None)) + "\n", encoding="utf-8")
    print(f"\n{summary.as_markdown()}\n")
    print(
        f"  figure:  {folder / FIGURE}\n  report:  {folder / REPORT}\n  trials:  {folder}/trials.parquet and trials.csv"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
