# /// script
# dependencies = ["hf_geo[sweep]"]
# [tool.uv.sources]
# hf_geo = { path = "..", editable = true }
# ///
"""Trains one recipe at many settings and reports the results: optimizers x learning rates (or any fields) x seeds.

    python scripts/sweep.py --config configs/quickstart.yaml --optims fromage,sgd,adamw_torch --lrs 1,0.1,0.01,0.001
    python scripts/sweep.py --config configs/fromage/sweep_cifar10.yaml --variants fromage,sgdm,adamw --lrs 1,0.1,0.01 --seeds 0,1,2
    python scripts/sweep.py --config configs/fromage/transfer_mnist.yaml --variants fromage,sgdm --lrs 1,0.1,0.01 --over model_args.width=64,256
    python scripts/sweep.py --config configs/quickstart.yaml --optims fromage,sgd --lrs 0.0001:1 --trials 20

Each value of --over has a curve of its own, and the report says whether the best learning rate stays the same from one to the
next; --coordinate_check shows why, by how much the first updates change each layer's output. With --seeds, figures and tables show means with their 95 % intervals.

Any option of train.py may follow; it applies to all trials. Started again with the same --output_dir, a sweep goes on: a trial
that has ended is not run again (unless its folder under trials/ is removed), one that was still running is. With other values
the sweep grows, and its figure and tables show all trials. A trial that fails or diverges is recorded as such and does not end
the sweep. Trials keep no checkpoints: their last weights are evaluated.
"""

import argparse
import functools
import importlib.util
import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from tqdm.auto import tqdm
from transformers import set_seed

from hf_geo.cli.config import FieldParser, parse_command_line
from hf_geo.cli.options import OptionParser, at_least, program_name
from hf_geo.cli.output import protect_output
from hf_geo.cli.recipes import recipe_file
from hf_geo.cli.run_arguments import RUN_ARGUMENTS, resolve_settings
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.experiments.figure import draw_sweep
from hf_geo.experiments.records import FINISHED, Records
from hf_geo.experiments.report import FIGURE, ORIGIN, REPORT, describe_sweep, format_summary
from hf_geo.experiments.runs import origin
from hf_geo.experiments.summary import Summary, choose_metric, describe_failures, list_values
from hf_geo.experiments.sweep import Grid, Source, run_trials
from hf_geo.experiments.training_curves import METRIC, RATE, join_rates
from hf_geo.experiments.trials import (
    SEED,
    VARIANT,
    MakeTrial,
    Trial,
    axis_label,
    choose_x,
    collect_axes,
    combinations,
    is_range,
    make_trial,
    split_values,
)
from hf_geo.metrics import higher_is_better
from hf_geo.tasks import build_setup, find_task

PROG = program_name(__file__)
TRAIN = Path(__file__).with_name("train.py")
TRIAL_OPTIONS = ("--as_recipe", "--save_strategy=no", "--load_best_model_at_end=false", "--disable_tqdm=true")
AXIS_OPTIONS = {VARIANT: "variants", "optim": "optims", "learning_rate": "lrs", SEED: "seeds"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    with one_sentence_errors(PROG):
        options, arguments = parse(argv)
        axes = read_axes(options)
        options.x = choose_x(axes, options.x, is_search=bool(options.trials))
        resolve = functools.cache(functools.partial(resolve_settings, prog=PROG, usage=f"{PROG} --config FILE ..."))
        private = functools.partial(resolve, public=False)
        make = functools.partial(make_trial, arguments=arguments, resolve=resolve, resolve_private=private)
        for field, values in axes.items():  # each value alone, so that an invalid one is found before anything runs
            for value in values:
                make({field: value.split(":")[0] if is_range([value]) else value})
        folder = Path(options.output_dir or Path("outputs") / f"sweep-{Path(options.config).stem}")
        records = Records(folder)
        records.ended_trials(axes, make)  # raises for a folder of other settings
        grid = None if options.trials else Grid(axes, make)
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder):
            if options.coordinate_check:
                return check_coordinates(axes, make, folder, options)
            source = grid or make_search(axes, arguments, folder, make, options)
            run_trials(source, records, TRAIN, options.metric, options.jobs)
            return report(records, axes, make, arguments, options)


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Parses the sweep's own options; returns them and the arguments that all trials share."""
    parser = OptionParser(
        PROG,
        f"{PROG} --config FILE [--optims A,B] [--lrs X,Y] [--over FIELD=A,B] [--OPTION_OF_TRAIN VALUE ...]",
        __doc__,
    )
    add = parser.add_argument
    add("--config", required=True, type=recipe_file, metavar="FILE", help="The recipe: a file, or one's name.")
    add("--variants", metavar="A,B", help="Variants of the recipe.")
    add("--optims", metavar="A,B", help="Optimizers.")
    add("--lrs", metavar="X,Y", help="Learning rates, or with --trials LOW:HIGH.")
    add("--seeds", metavar="N,M", help="Seeds; means over them have 95%% intervals.")
    add(
        "--over",
        action="append",
        default=[],
        metavar="FIELD=A,B",
        help="Any other field, or one argument of the model (model_args.width=64,128) or of the optimizer.",
    )
    add("--trials", type=at_least(1), metavar="N", help="Let Optuna choose N settings for each optimizer.")
    add("--x", metavar="FIELD", help="Horizontal axis of the figure (default: the learning rate if it is swept over).")
    add(
        "--metric",
        metavar="NAME",
        help="What ranks trials (default: the task's main metric on the evaluation split). training_accuracy is the "
        "mean over the updates that are logged in the last epoch; of several learning rates, the largest at each update counts.",
    )
    add("--jobs", type=at_least(1), default=1, metavar="N", help="Trials at once, each in a process and on a GPU.")
    add(
        "--coordinate_check",
        action="store_true",
        help="Instead of whole trials, measure how eight updates change the outputs of each layer, against --over.",
    )
    add("--title", metavar="TEXT", help="Title of the figure and the report.")
    add("--output_dir", metavar="DIR", help="The sweep's folder (default: outputs/sweep-RECIPE).")
    options, rest = parser.parse_known_args(argv)
    if options.metric is not None:
        higher_is_better(options.metric)  # raises if that is not known
    given = parser.find_given(sys.argv[1:] if argv is None else argv)
    if options.coordinate_check and (idle := sorted(given & {"trials", "x", "metric", "jobs"})):
        raise ValueError(f"--coordinate_check runs no trials: leave --{idle[0]} out.")
    if options.trials and importlib.util.find_spec("optuna") is None:
        raise ValueError("--trials needs Optuna: pip install 'hf_geo[sweep]'.")
    return options, [f"--config={options.config}", *TRIAL_OPTIONS, *rest]


def read_axes(options: argparse.Namespace) -> dict[str, list[str]]:
    """Returns the values of each field that is swept over."""
    given = {field: getattr(options, option) for field, option in AXIS_OPTIONS.items()}
    lists = {field: split_values(f"--{AXIS_OPTIONS[field]}", text) for field, text in given.items() if text is not None}
    known = {action.dest for action in FieldParser(RUN_ARGUMENTS).options.values()}
    return collect_axes(lists, options.over, known)


def lock(folder: Path) -> AbstractContextManager:
    """Keeps other sweeps out of the folder until the lock is released."""
    try:
        return FileLock(folder / ".lock", blocking=False).acquire()
    except Timeout:
        raise ValueError(f"Another sweep is running in {str(folder)!r}: choose another --output_dir.") from None


def make_search(
    axes: dict[str, list[str]], arguments: Sequence[str], folder: Path, make: MakeTrial, options: argparse.Namespace
) -> Source:
    """Sets up the search by Optuna, and the metric it goes by if none was asked for."""
    from hf_geo.experiments.search import Search  # Optuna is an extra

    if options.metric is None:
        model, data, _, run, *_ = parse_command_line(RUN_ARGUMENTS, arguments, prog=PROG)
        options.metric = f"eval_{find_task(run.task, model.model, data.dataset).metric}"
    return Search(axes, options.trials, folder, make, maximize=higher_is_better(options.metric))


def check_coordinates(axes: dict[str, list[str]], make: MakeTrial, folder: Path, options: argparse.Namespace) -> int:
    """Measures each layer's output at the start of training for all values; returns the exit status.

    Raises:
        ValueError: No field with numbers is swept over besides rates, or a subspace is trained.
    """
    from hf_geo.experiments.coordinates import draw_coordinates, format_exponents, measure_coordinates

    x = choose_x({field: axes[field] for field in axes if field not in AXIS_OPTIONS}, None, is_search=False)
    if x is None:
        raise ValueError(
            "--coordinate_check compares networks: name a field with numbers, as in --over model_args.width=64,256."
        )
    if useless := [value for value in axes[x] if float(value) <= 0]:
        raise ValueError(f"--coordinate_check draws against powers of {x}: {useless[0]} has none, so leave it out.")
    rows = []
    for values in tqdm(combinations(axes), desc="networks", unit="network"):
        trial = make(values)
        model_args, data_args, subspace_args, run_args, args, _ = parse_command_line(
            RUN_ARGUMENTS, trial.arguments, prog=PROG
        )
        if subspace_args.config:
            raise ValueError("--coordinate_check follows one network and no subspace: leave --subspace out.")
        setting = list_values(trial.values, [field for field in axes if field not in (x, SEED)]) or "all networks"
        set_seed(args.seed)
        task = find_task(run_args.task, model_args.model, data_args.dataset)
        found = measure_coordinates(build_setup(task, model_args, data_args, args), args)
        rows += [{**trial.values, "setting": setting, **row} for row in found]
        table = pd.DataFrame(rows)  # kept after each network, lest a later one costs the earlier ones
        table.drop(columns="setting").to_csv(folder / "coordinates.csv", index=False)
    settings = list(dict.fromkeys(table.setting))
    title = options.title or f"{Path(options.config).stem}: coordinate check"
    draw_coordinates(table, x, settings, folder / "coordinates.png", title)
    print(
        f"\n{format_exponents(table, x, settings)}\n\n  figure:  {folder}/coordinates.png\n  table:   {folder}/coordinates.csv"
    )
    return 0


def report(
    records: Records, axes: dict[str, list[str]], make: MakeTrial, arguments: Sequence[str], options: argparse.Namespace
) -> int:
    """Writes tables, figure and report of all trials that have ended; returns the exit status."""
    trials, folder = records.ended_trials(axes, make), records.folder
    table = records.table(trials)
    table.to_csv(folder / "trials.csv", index=False)
    table.to_parquet(folder / "trials.parquet", index=False)
    if not (table.state == FINISHED).any():
        first, *_ = describe_failures(table, list(axes))
        print(f"{PROG}: error: No trial came to an end: {first}", file=sys.stderr)
        return 1
    metric = choose_metric([name for name in table if name not in axes], options.metric)
    axes = list(axes)
    if metric == METRIC and RATE in axes and options.x != RATE:
        table = join_rates(table, folder, axes)
        axes.remove(RATE)
    over = [] if options.trials else [field for field in axes if field not in (*AXIS_OPTIONS, options.x)]
    summary = Summary(table, axes, metric, options.x, over)
    write_report(folder, summary, trials, arguments, options)
    print(
        f"\n{format_summary(summary)}\n\n"
        f"  figure:  {folder / FIGURE}\n  report:  {folder / REPORT}\n  trials:  {folder}/trials.parquet and trials.csv"
    )
    return 0


def write_report(
    folder: Path, summary: Summary, trials: Sequence[Trial], arguments: Sequence[str], options: argparse.Namespace
) -> None:
    """Draws the figure, and writes the report and where its recipe lies."""
    varied = ", ".join(map(axis_label, [summary.x] if summary.x else summary.axes))
    title = options.title or f"{Path(options.config).stem}: a sweep over {varied}"
    draw_sweep(summary, folder / FIGURE, title)
    given = parse_command_line(RUN_ARGUMENTS, arguments, prog=PROG)[-1].given | {"seed"}
    given -= {option.split("=")[0].strip("-") for option in TRIAL_OPTIONS}
    text = describe_sweep(title, options.config, trials, given, summary)
    (folder / REPORT).write_text(text, encoding="utf-8")
    axes = {"is_search": bool(options.trials), "x": summary.x, "over": summary.over, "searched": summary.searched}
    (folder / ORIGIN).write_text(json.dumps(origin(options.config, None) | axes) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
