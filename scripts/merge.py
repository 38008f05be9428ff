# /// script
# dependencies = ["hf_geo"]
# [tool.uv.sources]
# hf_geo = { path = "..", editable = true }
# ///
"""Averages trained networks of one architecture, or shows whether a path of good networks joins two of them.

    python scripts/merge.py --method barrier --model outputs/a --model outputs/b --output_dir outputs/barrier
    python scripts/merge.py --method average --model outputs/a --model outputs/b --model outputs/c --output_dir outputs/soup
    python scripts/merge.py --method greedy --model outputs/a --model outputs/b --model outputs/c --output_dir outputs/soup
    python scripts/merge.py --method interpolate --position 0.5 --model PRETRAINED --model FINE_TUNED --output_dir outputs/between
    python scripts/merge.py --method curve --recipe FILE.yaml --model outputs/a --model outputs/b --output_dir outputs/bend

Averages (Wortsman et al. 2022) are evaluated beside the networks they are made of, and written as a folder that opens as they
do. Norm statistics are taken anew, from training samples. The data are those of the first model's run unless --dataset names
others. Adapters of one base model are averaged as adapters: A and B of a LoRA each, which is not the average of their products.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch

from hf_geo.checkpoints.placing import place_result
from hf_geo.checkpoints.results import save_result
from hf_geo.cli.merges import MERGES, Merge
from hf_geo.cli.merging import Parents, hub_ids, open_parents
from hf_geo.cli.options import at_least, program_name
from hf_geo.cli.output import protect_output
from hf_geo.cli.recipes import recipe_file
from hf_geo.cli.trained import display_names, parse_trained
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.data.config import DataArguments
from hf_geo.evaluation.figures import draw_segment
from hf_geo.evaluation.norms import running_statistics
from hf_geo.evaluation.report import as_data, as_table
from hf_geo.experiments.workers import load_main
from hf_geo.hub.merged import METHODS, write_merge_card
from hf_geo.models.sources import brings_code, read_license
from hf_geo.runs.folder import check_writable, public_settings
from hf_geo.runs.report import finite, write_results
from hf_geo.subspaces.shapes import SHAPES
from hf_geo.tasks import find_trained, read_run_settings

PROG = program_name(__file__)
OF_TWO = ("barrier", "interpolate", "curve")
OWNERS = {"coefficients": "average", "metric": "greedy", "position": "interpolate", "select_position": "interpolate",
          "also_dataset": "interpolate", "recipe": "curve", "positions": "barrier, interpolate or curve"}  # fmt: skip
OF_A_WALK = ("recalibration_batches", "batch_size", "num_workers", "device")
# Settings of a run from scratch that its result brings along.
OF_THE_ENDS = {"normalization", "eval_resize", "interpolation", "lowercase", "min_frequency"}
FIGURE = "figures/merge.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    with one_sentence_errors(PROG):
        options, data_args = parse_trained(
            argv,
            add_options,
            prog=PROG,
            usage=f"{PROG} --method METHOD --model NAME --model NAME --output_dir DIR [--OPTION VALUE ...]",
            description=__doc__,
        )
        check(options)
        for name in options.model:
            place_result(name)
        if options.method == "curve":
            return train_bend(options, data_args)
        parents = open_parents(options, data_args)
        merge = MERGES[options.method](parents, options, data_args)
        results = finite(describe(merge, parents, options, data_args))
        write(results, merge, parents, options, data_args)
        print(json.dumps(results, indent=2) if options.json else f"{as_table(results)}\n{merge.conclusion}")
    print(f"  wrote {options.output_dir}", file=sys.stderr if options.json else sys.stdout)
    return 0


def add_options(add: Callable[..., argparse.Action]) -> None:
    """Adds the script's own options."""
    add("--method", required=True, choices=("barrier", *METHODS, "curve"), help="What to do with the networks.")
    add("--output_dir", required=True, metavar="DIR", help="New folder for the result.")
    add("--coefficients", metavar="C,C,...", help="Of average: the weight of each network. Default: equal ones.")
    add("--metric", metavar="NAME", help="Of greedy: the metric on the validation split. Default: the task's.")
    add(
        "--position",
        type=float,
        metavar="P",
        help="Of interpolate: 0 is the first network, 1 the second. Default: 0.5.",
    )
    add(
        "--select_position",
        action="store_true",
        help="Of interpolate: take the position of the lowest validation loss.",
    )
    add(
        "--positions",
        type=at_least(3),
        default=11,
        metavar="N",
        help="Of barrier, interpolate, curve: positions to evaluate.",
    )
    add("--also_dataset", action="append", metavar="NAME[:CONFIG]",
        help="Of interpolate: a further dataset of the same classes to evaluate the positions on, never on its training "
        "split unless that is its only one.")  # fmt: skip
    add("--without_head", action="store_true",
        help="Merge classifiers of different classes: all but the head, which stays the first one's.")  # fmt: skip
    add(
        "--recipe",
        type=recipe_file,
        metavar="FILE",
        help="Of curve: the recipe of scripts/train.py that trains the bend.",
    )


def check(options: argparse.Namespace) -> None:
    """Checks the options that need no model.

    Raises:
        ValueError: They do not fit the method, or the output folder cannot be used.
    """
    method, count = options.method, len(options.model)
    if count < 2 or (method in OF_TWO and count > 2):
        needed = "two networks" if method in OF_TWO else "two networks or more"
        raise ValueError(
            f"--method {method} takes {needed}, and there is --model {count} times: name each with --model."
        )
    for name, owners in OWNERS.items():
        if name in options.given and method not in owners:
            raise ValueError(f"--{name} is for --method {owners}, not for {method}: leave it out.")
    if method == "curve" and not options.recipe:
        raise ValueError("--method curve trains a bend: name its recipe with --recipe (subspaces/quickstart_line).")
    if method == "curve":
        if idle := sorted(options.given & {"without_head", "json"}):
            raise ValueError(f"--{idle[0]} is not for --method curve, which trains: leave it out.")
        if options.device not in ("cpu", "cuda"):
            raise ValueError(
                f"--device {options.device} cannot be chosen for training: set CUDA_VISIBLE_DEVICES, and leave it out."
            )
    if options.position is not None:
        if options.select_position:
            raise ValueError("--position and --select_position contradict each other: give one of them.")
        SHAPES["line"].check(torch.tensor(options.position), 2, None)
    folder = Path(options.output_dir)
    if any((folder / name).exists() for name in ("model.safetensors", "adapter_config.json", "merge.json")):
        raise ValueError(f"The output folder {str(folder)!r} holds a result already: choose another --output_dir.")
    check_writable(folder)


def describe(merge: Merge, parents: Parents, options: argparse.Namespace, data_args: DataArguments) -> dict[str, Any]:
    """The result as plain data: merge.json, from which the card is written."""
    model = parents.base if parents.adapter_of else parents.model
    architecture = getattr(model.config, "architecture", None)
    maker = timm.model_entrypoint(architecture) if architecture and timm.is_model(architecture) else type(model)
    is_hub_id = data_args.dataset.count("/") == 1 and not Path(data_args.dataset).is_dir()
    bases = [parents.adapter_of] if parents.adapter_of else []
    licenses = {read_license(name) for name in [*options.model, *bases]}
    coefficients = merge.coefficients or [None] * len(parents.names)
    positions = merge.positions if merge.coefficients is None else [None] * len(merge.names)
    return {
        "name": Path(options.output_dir).resolve().name,
        "method": options.method,
        "parents": [{"name": n, "coefficient": c} for n, c in zip(parents.names, coefficients, strict=True)],
        "base_models": hub_ids([*options.model, *bases]),
        "adapter_of": display_names(bases)[0] if bases else None,
        "base_id": next(iter(hub_ids(bases)), None),
        "license": licenses.pop() if len(licenses) == 1 else None,
        "task": parents.task.hub_name,
        "metric": next((name for name in parents.task.metrics if name in merge.found.points[-1]), "loss"),
        "library": "timm" if architecture else "transformers",
        "model_class": parents.task.auto_class,
        "processor_class": parents.processor_class,
        "brings_code": brings_code(model),
        "needs_hf_geo": maker.__module__.startswith("hf_geo."),
        "dataset": parents.setup.dataset,
        "dataset_id": data_args.dataset if is_hub_id else None,
        "split": parents.setup.split,
        "has_statistics": bool(running_statistics(model)),
        **as_data(merge.found, merge.names, positions),
        "conclusion": merge.conclusion,
        "figures": {FIGURE: "Networks along the segment between the two"} if merge.curves else {},
        "curves": {name: list(rows) for name, rows in merge.curves.items()},
        "curve_positions": list(merge.positions),
        **merge.more,
    }


def write(
    results: Mapping[str, Any], merge: Merge, parents: Parents, options: argparse.Namespace, data_args: DataArguments
) -> None:
    """Writes the merged network if there is one, its card, the figure and merge.json.

    Raises:
        ValueError: The disk refuses.
    """

    def fill(folder: Path) -> None:
        if merge.curves:
            title = f"{parents.names[0]} (0) and {parents.names[1]} (1)"
            draw_segment(merge.curves, merge.positions, folder / FIGURE, title)
        if merge.state is not None:
            parents.export(merge.state, folder)
            write_merge_card(folder, results)
        write_results(folder, merge=results, training_args=public_settings(data_args))

    failure = save_result(options.output_dir, fill, first=True)
    if failure:
        raise ValueError(
            f"The result could not be written to {options.output_dir!r}, because {failure}: choose another --output_dir."
        )


def train_bend(options: argparse.Namespace, data_args: DataArguments) -> int:
    """Trains the bend of a curve between two fixed networks by scripts/train.py, and walks it by scripts/evaluate.py."""
    train, evaluate = (load_main(str(Path(__file__).with_name(f"{name}.py"))) for name in ("train", "evaluate"))
    defaults = {each.name: each.default for each in dataclasses.fields(DataArguments)}
    known = read_run_settings(find_trained(options.model[0]))
    as_the_ends = {
        name: known[name] for name in ("label_noise", "image_size") if known.get(name) and name not in options.given
    }
    brought = OF_THE_ENDS - options.given
    data = words_of(
        {name: value for name, value in vars(data_args).items() if value != defaults[name] and name not in brought}
    )
    shared = words_of({name: getattr(options, name) for name in ("seed", "trust_remote_code") if name in options.given})
    on_cpu = ["--use_cpu=true"] if options.device == "cpu" and torch.cuda.is_available() else []
    bend = ["--subspace=curve", "--subspace_beta=0", "--subspace_ends", *options.model, f"--model={options.model[0]}"]
    trained = [f"--config={options.recipe}", "--as_recipe", *data, *words_of(as_the_ends), *bend, *shared, *on_cpu]
    walked = words_of({name: getattr(options, name) for name in OF_A_WALK if name in options.given})
    status = train([*trained, f"--output_dir={options.output_dir}"])
    return status or evaluate(
        [f"--model={options.output_dir}", f"--positions={options.positions}", *data, *shared, *walked]
    )


def words_of(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line."""
    words: list[str] = []
    for name, value in options.items():
        words += [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}={value}"]
    return words


if __name__ == "__main__":
    sys.exit(main())
