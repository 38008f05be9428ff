"""Evaluates a trained subspace along its positions, exports one of them, or compares trained models.

Image classifiers by accuracy, likelihood and calibration; language models by perplexity too.

    python scripts/evaluate.py --model outputs/quickstart_line
    python scripts/evaluate.py --model outputs/quickstart_line --export_position 0.2 --output_dir outputs/one_point
    python scripts/evaluate.py --model outputs/a --model outputs/b --ensemble

The data are those of the run (training_args.json) unless --dataset names others. Results go into the first model's
folder, and into its card, unless --output_dir names another.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hf_geo.checkpoints.placing import place_result, whole_file
from hf_geo.checkpoints.results import save_result
from hf_geo.cli.config import FieldParser
from hf_geo.cli.options import add_trust, at_least, device, seed
from hf_geo.cli.output import protect_output
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.data.config import DataArguments
from hf_geo.data.sources import EMBEDDED
from hf_geo.evaluation.norms import recalibrate_norms
from hf_geo.evaluation.plans import plan_walk
from hf_geo.evaluation.report import as_data, as_table, name_positions
from hf_geo.evaluation.walk import RECALIBRATION_BATCHES, evaluate_models, walk
from hf_geo.hub.describe import WALK, Description
from hf_geo.hub.export import export_model
from hf_geo.models.sources import ModelSource
from hf_geo.runs.folder import check_writable
from hf_geo.runs.report import finite
from hf_geo.subspaces import Subspace
from hf_geo.tasks import TASKS, EvaluationOptions, EvaluationSetup, find_trained, open_trained, read_run_settings

SUBSPACE = "subspace_config.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    with one_sentence_errors("evaluate.py"):
        options, data_args = parse(argv)
        for name in options.model:
            place_result(name)
        sources = [find_trained(name) for name in options.model]
        is_subspace = len(sources) == 1 and sources[0].has_file(SUBSPACE)
        exporting = options.export_position is not None
        if exporting:
            check_export(options, is_subspace)
        folder = results_folder(options)
        if folder is not None:
            check_writable(folder)
        how = EvaluationOptions(
            options.batch_size, options.num_workers, options.seed, options.device, options.trust_remote_code
        )
        setup = open_trained(sources, data_args, how)
        if exporting:
            print(f"  wrote {export(setup, sources[0], options)}")
            return 0
        found = walk_subspace(setup, sources[0], options) if is_subspace else compare_models(setup, options)
        origin = {"models": display_names(options.model), "dataset": setup.dataset, "split": setup.split}
        results = finite(origin | found)
        print(json.dumps(results, indent=2) if options.json else as_table(results))
        written = write(results, folder) if folder else []
    print("\n".join(f"  wrote {path}" for path in written), file=sys.stderr if options.json else sys.stdout)
    return 0


def walk_subspace(setup: EvaluationSetup, source: ModelSource, options: argparse.Namespace) -> dict[str, Any]:
    """Evaluates networks along a subspace, and ensembles of them."""
    subspace = Subspace.load(source.name, setup.models[0])
    plan = plan_walk(subspace, options.positions, options.seed)
    found = walk(
        subspace,
        plan.coefficients(subspace),
        setup.evaluation,
        setup.recalibration,
        ensembles=plan.ensembles,
        recalibration_batches=options.recalibration_batches or None,
        positions_at_once=options.positions_at_once,
        causal=setup.causal,
    )
    positions = [position.tolist() for position in plan.positions]
    return as_data(found, name_positions(plan, subspace.config), positions, subspace.config)


def compare_models(setup: EvaluationSetup, options: argparse.Namespace) -> dict[str, Any]:
    """Evaluates each model, and their ensemble if asked for."""
    count = len(setup.models)
    ensembles = [tuple(range(count))] if options.ensemble and count > 1 else []
    found = evaluate_models(setup.models, setup.evaluation, ensembles=ensembles, causal=setup.causal)
    return as_data(found, display_names(options.model), [None] * count, None)


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, DataArguments]:
    """The options, with the data settings of the first model's run as defaults."""
    parser = FieldParser(
        (DataArguments,), prog="evaluate.py", usage="evaluate.py --model NAME [--OPTION VALUE ...]", description=__doc__
    )
    add = parser.add_argument_group("Evaluation").add_argument
    add("--model", action="append", required=True, metavar="NAME", help="Folder or Hub id; several are compared.")
    add("--positions", type=at_least(2), default=21, metavar="N", help="Positions of a subspace to evaluate.")
    add(
        "--ensemble",
        action="store_true",
        help="Evaluate the ensemble of several models too. Ensembles of a subspace's positions always are.",
    )
    add(
        "--positions_at_once",
        type=at_least(2),
        default=32,
        metavar="N",
        help="Positions that share a pass over the data: more are faster and need more memory.",
    )
    add(
        "--recalibration_batches",
        type=at_least(0),
        default=RECALIBRATION_BATCHES,
        metavar="N",
        help="Training batches from which norm statistics are taken at each position; 0 for all.",
    )
    add("--export_position", metavar="P", help="Write the network at a position (0.2, or weights 0.5,0.3,0.2) instead.")
    add("--output_dir", metavar="DIR", help="Where results go. Default: the first model's folder.")
    add("--batch_size", type=at_least(1), metavar="N", help="Samples in a batch. Default: 128 images or 8 texts.")
    add("--num_workers", type=at_least(0), default=0, metavar="N", help="Processes that prepare samples.")
    add(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="Seed of drawn positions and of the training images that norm statistics are taken from.",
    )
    add("--json", action="store_true", help="Print JSON instead of a table.")
    add(
        "--device",
        type=device,
        default="cuda" if torch.cuda.is_available() else "cpu",
        metavar="TEXT",
        help="Where to run.",
    )
    add_trust(add)
    first, _ = parser.parse_known_args(argv)
    fields = [field.name for field in dataclasses.fields(DataArguments)]
    known = read_run_settings(find_trained(first.model[0]))
    trained_with = {name: known[name] for name in fields if name in known}
    # Labels are evaluated without noise, and an export knows the size of its images.
    parser.set_defaults(**{**trained_with, "label_noise": 0.0, "image_size": None})
    dataset = known.get("dataset")
    parser.set_defaults(dataset=dataset if is_known_anywhere(dataset) else None)
    options = parser.parse_args(argv)
    if options.dataset is None:
        reason = f"was trained on {dataset!r}, whose path it does not keep" if dataset else "does not name its dataset"
        raise ValueError(f"{first.model[0]!r} {reason}: name the data with --dataset.")
    for name in ("train_split", "eval_size"):
        given, trained = getattr(options, name), known.get(name)
        if name in known and options.dataset == dataset and given != trained:
            raise ValueError(
                f"--{name} {given} would evaluate {first.model[0]!r}, trained with {trained}, on samples it was trained on: "
                "leave it out."
            )
    return options, DataArguments(**{name: getattr(options, name) for name in fields})


def is_known_anywhere(dataset: str | None) -> bool:
    """Whether the dataset's name in a run's settings is enough to find it; of a folder they keep only the last part."""
    if dataset is None or dataset.startswith("./"):
        return False
    return "/" in dataset or dataset in EMBEDDED or any(dataset in task.datasets for task in TASKS.values())


def display_names(models: Sequence[str]) -> list[str]:
    """The models' names; a folder is shown by the last part of its path unless two share it."""
    short = [Path(name).resolve().name if Path(name).exists() else name for name in models]
    return [name if short.count(name) == 1 else full for name, full in zip(short, models, strict=True)]


def check_export(options: argparse.Namespace, is_subspace: bool) -> None:
    if not is_subspace:
        raise ValueError(
            "--export_position needs one --model with a subspace (subspace_config.json beside its weights)."
        )
    if options.output_dir is None or Path(options.output_dir, "model.safetensors").exists():
        raise ValueError(
            f"--export_position {options.export_position} writes a network: give a new folder for it with --output_dir."
        )


def export(setup: EvaluationSetup, source: ModelSource, options: argparse.Namespace) -> str:
    """Writes the network at a position, with norm statistics recalibrated there; returns what was written, in words."""
    model = setup.models[0]
    subspace = Subspace.load(source.name, model)
    try:
        position = [float(word) for word in options.export_position.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--export_position is a number, or weights separated by commas, not {options.export_position!r}."
        ) from error
    subspace.set_position(position[0] if len(position) == 1 else position)
    if setup.recalibration is not None:
        recalibrate_norms(model, setup.recalibration, options.recalibration_batches or None)
    weights = subspace.folded_state_dict()
    failure = save_result(
        options.output_dir,
        lambda folder: export_model(model, folder, processor=setup.processor, state_dict=weights),
        first=True,
    )
    if failure:
        raise ValueError(
            f"The network could not be written to {options.output_dir!r}, because {failure}: choose another --output_dir."
        )
    libraries = "timm and transformers" if setup.processor is None else "transformers"
    return f"{options.output_dir}/model.safetensors with config.json: opens in {libraries}"


def results_folder(options: argparse.Namespace) -> Path | None:
    """The folder for results; None for a model of the Hub without an --output_dir."""
    model_folder = Path(options.model[0].removeprefix("local-dir:"))
    if options.output_dir is not None:
        return Path(options.output_dir)
    return model_folder if model_folder.is_dir() else None


def write(results: dict[str, Any], folder: Path) -> list[str]:
    """Writes evaluation.json and, for a subspace, its figures and the card's section; returns the written paths."""
    with whole_file(folder / WALK) as path:
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    description = Description(folder)
    if results["subspace"]:
        description.add_walk(results)
    return [f"{folder}/{name}" for name in (WALK, *description.made)]


if __name__ == "__main__":
    sys.exit(main())
