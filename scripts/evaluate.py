# /// script
# dependencies = ["hf_geo"]
# [tool.uv.sources]
# hf_geo = { path = "..", editable = true }
# ///
"""Evaluates a trained subspace along its positions, exports one of them, or compares trained models.

Image classifiers by accuracy, likelihood and calibration; language models by perplexity too; copied sequences bit by bit;
generated images by their Fréchet distance from real ones, with pictures of samples and of paths between them.

    python scripts/evaluate.py --model outputs/quickstart_line
    python scripts/evaluate.py --model outputs/quickstart_line --trust --select_position
    python scripts/evaluate.py --model outputs/quickstart_line --export_position 0.2 --output_dir outputs/one_point
    python scripts/evaluate.py --model outputs/a --model outputs/b --ensemble
    python scripts/evaluate.py --model outputs/a --corruption gaussian_noise fog --severity 1 3 5

The data are those of the run (training_args.json) unless --dataset names others. Results go into the first model's
folder unless --output_dir names another; those of a subspace go into the card there too.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from hf_geo.checkpoints.placing import place_result, whole_file
from hf_geo.checkpoints.results import save_result
from hf_geo.cli.evaluating import add_options, check_options
from hf_geo.cli.options import program_name
from hf_geo.cli.output import protect_output
from hf_geo.cli.trained import display_names, evaluation_options, parse_trained
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.evaluation.norms import recalibrate_norms
from hf_geo.evaluation.plans import plan_walk
from hf_geo.evaluation.report import as_data, as_table, name_positions, note_on, select_position, shift_table
from hf_geo.evaluation.trust import TrustData
from hf_geo.evaluation.walk import evaluate_models, walk
from hf_geo.hub.describe import WALK, Description
from hf_geo.hub.export import export_model
from hf_geo.models.sources import ModelSource
from hf_geo.runs.folder import check_writable
from hf_geo.runs.report import finite
from hf_geo.subspaces import Subspace
from hf_geo.tasks import EvaluationSetup, find_trained, open_trained

PROG = program_name(__file__)
SUBSPACE = "subspace_config.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    with one_sentence_errors(PROG):
        usage = f"{PROG} --model NAME [--OPTION VALUE ...]"
        options, data_args = parse_trained(argv, add_options, prog=PROG, usage=usage, description=__doc__)
        for name in options.model:
            place_result(name)
        sources = [find_trained(name) for name in options.model]
        is_subspace = len(sources) == 1 and sources[0].has_file(SUBSPACE)
        check_options(options, is_subspace=is_subspace)
        folder = results_folder(options)
        if folder is not None:
            check_writable(folder)
        how = replace(evaluation_options(options), fid_model=options.fid_model)
        setup = open_trained(sources, data_args, how)
        if options.export_position is not None:
            print(f"  wrote {export(setup, sources[0], options)}")
            return 0
        pictures: list[str] = []
        if options.fid_model and not setup.measure:
            raise ValueError("--fid_model is for models that generate images: leave it out.")
        if setup.measure:
            found, pictures = measure_models(setup, options, folder)
        else:
            subspace = Subspace.load(sources[0].name, setup.models[0]) if is_subspace else None
            trust, shifts = trust_data(setup, options), open_shifts(setup, options)
            found = evaluate_networks(setup, subspace, options, trust)
            if shifts:
                found["shifts"] = evaluate_shifts(shifts, setup, subspace, options)
        if options.select_position:
            found["selected"] = select_position(found)
        origin = {
            "models": display_names(options.model),
            "dataset": setup.dataset,
            "split": setup.split,
            "average": options.average,
        }
        results = finite(origin | found)
        print(
            json.dumps(results, indent=2)
            if options.json
            else f"{as_table(results)}\n{shift_table(results)}{note_on(results)}"
        )
        written = [f"{folder}/{name}" for name in pictures] + (write(results, folder) if folder else [])
    print("\n".join(f"  wrote {path}" for path in written), file=sys.stderr if options.json else sys.stdout)
    return 0


def trust_data(setup: EvaluationSetup, options: argparse.Namespace) -> TrustData | None:
    """The data that trust is measured on and a position is selected by, if either is asked for."""
    validates = options.trust or options.select_position
    validation = setup.validation_or("leave --trust and --select_position out") if validates else None
    if options.ood_dataset is None:
        return TrustData(validation) if validates else None
    if setup.open_shifted is None:
        raise ValueError("--ood_dataset is for image classifiers: leave it out.")
    return TrustData(validation, setup.open_shifted(options.ood_dataset, needs_classes=False))


def evaluate_networks(
    setup: EvaluationSetup, subspace: Subspace | None, options: argparse.Namespace, trust: TrustData | None
) -> dict[str, Any]:
    """Evaluates networks along a subspace, or independent ones, and ensembles of them."""
    if subspace is None:
        return compare_models(setup, options, trust)
    plan = plan_walk(subspace, options.positions, options.seed, options.draws)
    found = walk(
        subspace,
        plan.coefficients(subspace),
        setup.evaluation,
        setup.recalibration,
        ensembles=plan.ensembles,
        recalibration_batches=options.recalibration_batches or None,
        trust=trust,
        positions_at_once=options.positions_at_once,
        causal=setup.causal,
        bins=options.ece_bins,
        average=options.average,
    )
    positions = [position.tolist() for position in plan.positions]
    return as_data(found, name_positions(plan, subspace.config), positions, subspace.config)


def compare_models(setup: EvaluationSetup, options: argparse.Namespace, trust: TrustData | None) -> dict[str, Any]:
    """Evaluates each model, and their ensemble if asked for."""
    count = len(setup.models)
    ensembles = [tuple(range(count))] if options.ensemble and count > 1 else []
    found = evaluate_models(
        setup.models,
        setup.evaluation,
        ensembles=ensembles,
        trust=trust,
        causal=setup.causal,
        bins=options.ece_bins,
        average=options.average,
    )
    return as_data(found, display_names(options.model), [None] * count, None)


def open_shifts(setup: EvaluationSetup, options: argparse.Namespace) -> list[tuple[str, int | None, DataLoader]]:
    """Opens what was asked for of corrupted images and other data sets: name, severity and batches of each."""
    if (options.corruption or options.shifted_dataset) and setup.corrupted is None:
        raise ValueError("--corruption and --shifted_dataset are for image classifiers: leave them out.")
    severities = sorted(set(options.severity))
    shifts = [(kind, s, setup.corrupted(kind, s)) for kind in options.corruption for s in severities]
    return shifts + [(name, None, setup.open_shifted(name)) for name in options.shifted_dataset]


def evaluate_shifts(
    shifts: Sequence[tuple[str, int | None, DataLoader]],
    setup: EvaluationSetup,
    subspace: Subspace | None,
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Evaluates the same networks on the data of `open_shifts`; returns what was measured on each."""
    found = []
    for name, severity, loader in shifts:
        rows = evaluate_networks(replace(setup, evaluation=loader), subspace, options, None)
        found.append({"shift": name, "severity": severity, **{key: rows[key] for key in ("points", "ensembles")}})
    return found


def measure_models(
    setup: EvaluationSetup, options: argparse.Namespace, folder: Path | None
) -> tuple[dict[str, Any], list[str]]:
    """Measures models of a task that has no predictions to compare; returns the figures and its pictures' paths."""
    for name in ("ensemble", "trust", "ood_dataset", "corruption", "shifted_dataset"):
        if getattr(options, name):
            raise ValueError(
                f"--{name} is about predictions, which models that generate images have not: leave it out."
            )
    rows, pictures = setup.measure(folder)
    points = [
        {"name": name, "position": None, **row} for name, row in zip(display_names(options.model), rows, strict=True)
    ]
    found = {"subspace": None, "samples": rows[0]["samples"], "recalibration_samples": 0}
    return found | {"points": points, "ensembles": []}, pictures


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
    """The folder for results; None for a model of the Hub without an --output_dir.

    Raises:
        ValueError: A comparison of models would replace the evaluation of the first one by itself.
    """
    if options.output_dir is not None:
        return Path(options.output_dir)
    folder = Path(options.model[0].removeprefix("local-dir:"))
    earlier = folder / WALK
    found = json.loads(earlier.read_text(encoding="utf-8")) if len(options.model) > 1 and earlier.is_file() else {}
    if len(found.get("models", ())) == 1:
        raise ValueError(
            f"{str(earlier)!r} is an evaluation of that model by itself, which a comparison would replace: name another "
            "folder for the comparison with --output_dir."
        )
    return folder if folder.is_dir() else None


def write(results: dict[str, Any], folder: Path) -> list[str]:
    """Writes evaluation.json and, for a subspace, its figures and the card's section; returns the written paths."""
    with whole_file(folder / WALK) as path:
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    description = Description(folder)
    description.add_walk(results)
    return [f"{folder}/{name}" for name in (WALK, *description.made)]


if __name__ == "__main__":
    sys.exit(main())
