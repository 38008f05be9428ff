# /// script
# dependencies = ["hf_geo"]
# [tool.uv.sources]
# hf_geo = { path = "..", editable = true }
# ///
"""Measures how soon the gradient of a trained classifier changes along itself (Bernstein et al. 2020, figure 1).

    python scripts/curvature.py --model outputs/mlp --max_train_samples 1000
    python scripts/curvature.py --model outputs/shallow --model outputs/deep --dataset ylecun/mnist --output_dir outputs/curvature

Of a run that has checkpoints, each of them is measured; of any other model, the model. From the weights, 100 relative steps go
along the initial gradients; measured are the loss and the relative change of the first layer's gradient. Both are over the
training samples (of a model that is no image classifier: the evaluated ones), without augmentation; --max_train_samples takes
a fixed subset of them. A network that cannot be measured is left out, such as one whose first layer has no gradient.
curvature.csv and curvature.png go into the first model's folder, unless --output_dir names another.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hf_geo.checkpoints.listing import list_checkpoints
from hf_geo.checkpoints.placing import place_result, whole_file
from hf_geo.cli.options import at_least, program_name
from hf_geo.cli.output import protect_output
from hf_geo.cli.trained import display_names, evaluation_options, parse_trained
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.data.config import DataArguments
from hf_geo.evaluation.curvature import draw_curvature, measure_curvature
from hf_geo.runs.folder import check_writable
from hf_geo.tasks import EvaluationSetup, find_trained, open_trained

PROG = program_name(__file__)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    with one_sentence_errors(PROG):
        usage = f"{PROG} --model NAME [--OPTION VALUE ...]"
        options, data_args = parse_trained(
            argv, add_options, recalibrates=False, prog=PROG, usage=usage, description=__doc__
        )
        data_args.augmentation = "none"
        folder = Path(options.output_dir or options.model[0].removeprefix("local-dir:"))
        if not (options.output_dir or folder.is_dir()):
            raise ValueError(f"{options.model[0]!r} is no folder: say with --output_dir where results go.")
        check_writable(folder)
        opened = [open_networks(name, options, data_args) for name in options.model]
        rows: list[dict[str, Any]] = []
        for name, networks in zip(display_names(options.model), opened, strict=True):
            for found in measure(name, *networks, options):
                rows += found
                table = pd.DataFrame(rows)  # kept after each network, lest a later one costs the earlier ones
                with whole_file(folder / "curvature.csv") as path:
                    table.to_csv(path, index=False)
        if not rows:
            raise ValueError("No network could be measured: see above.")
        draw_curvature(table, folder / "curvature.png")
        last = table[table.step == options.steps]
        print(last.to_json(orient="records") if options.json else last.to_string(index=False))
    names = "\n".join(f"  wrote {folder}/curvature.{kind}" for kind in ("csv", "png"))
    print(names, file=sys.stderr if options.json else sys.stdout)
    return 0


def open_networks(
    name: str, options: argparse.Namespace, data_args: DataArguments
) -> tuple[list[str], EvaluationSetup]:
    """Opens each checkpoint of a run, or a single model, with its data; returns labels of the networks with them."""
    place_result(name)
    source = find_trained(name)
    checkpoints = [] if source.has_file("subspace_config.json") else list_checkpoints(source.name)
    networks = [find_trained(str(path)) for path in checkpoints] or [source]
    labels = [path.name.replace("-", " ") for path in checkpoints] or ["trained"]
    return labels, open_trained(networks, data_args, evaluation_options(options))


def measure(
    shown: str, labels: Sequence[str], setup: EvaluationSetup, options: argparse.Namespace
) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of each network, one a step; says which networks have no curvature, and leaves them out."""
    loader = setup.evaluation if setup.recalibration is None else setup.recalibration
    for label, model in zip(labels, setup.models, strict=True):
        try:
            rows = measure_curvature(model, loader, steps=options.steps)
        except (ValueError, RuntimeError) as error:  # of torch's too, such as memory that has run out
            print(f"{PROG}: {shown}, {label}, is left out: {error}", file=sys.stderr)
        else:
            yield [{"model": shown, "network": label, **row} for row in rows]


def add_options(add: Callable[..., argparse.Action]) -> None:
    """Adds the script's own options."""
    add("--steps", type=at_least(1), default=100, metavar="N", help="Steps, each of a thousandth of a tensor's norm.")
    add("--output_dir", metavar="DIR", help="Where results go. Default: the first model's folder.")


if __name__ == "__main__":
    sys.exit(main())
