"""Evaluates a trained subspace along its positions, exports one of them, or compares trained models.

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
from huggingface_hub.errors import EntryNotFoundError
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedModel

from hf_geo.data.config import DataArguments
from hf_geo.data.vision import ImageData, load_image_data
from hf_geo.evaluation.norms import recalibrate_norms
from hf_geo.evaluation.plans import Plan, plan_walk
from hf_geo.evaluation.report import add_to_card, as_data, as_table, draw, name_positions
from hf_geo.evaluation.walk import RECALIBRATION_BATCHES, Walk, evaluate_models, walk
from hf_geo.hub.export import export_model
from hf_geo.models.build import build_image_classifier, input_config
from hf_geo.models.sources import ModelSource, download, find_model
from hf_geo.subspaces import Subspace
from hf_geo.training.config import make_parser
from hf_geo.training.user_errors import one_sentence_errors

SUBSPACE = "subspace_config.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    with one_sentence_errors("evaluate.py"):
        options, data_args = parse(argv)
        sources = [find_trained(name) for name in options.model]
        is_subspace = len(sources) == 1 and has_file(sources[0], SUBSPACE)
        if options.export_position is not None:
            check_export(options, is_subspace)
        data = load_image_data(data_args, seed=options.seed)
        models = [open_model(source, data).to(options.device).eval() for source in sources]
        configs = [input_config(model) for model in models]
        if any(config != configs[0] for config in configs):
            raise ValueError("The models take images that are prepared differently, so one pass cannot serve them all.")
        loaders = make_loaders(data, configs[0], options)
        if options.export_position is not None:
            export(models[0], sources[0], loaders["recalibration"], options)
            return 0
        if is_subspace:
            subspace = Subspace.load(sources[0].name, models[0])
            plan = plan_walk(subspace, options.positions, options.seed)
            found = walk(
                subspace,
                plan.coefficients(subspace),
                loaders["evaluation"],
                loaders["recalibration"],
                ensembles=plan.ensembles,
                recalibration_batches=options.recalibration_batches or None,
                positions_at_once=options.positions_at_once,
            )
            names, positions = name_positions(plan, subspace.config), [p.tolist() for p in plan.positions]
        else:
            together = [tuple(range(len(models)))] if options.ensemble and len(models) > 1 else []
            found = evaluate_models(models, loaders["evaluation"], ensembles=together)
            subspace, plan, names, positions = None, None, display_names(options.model), [None] * len(models)
    results = {
        "models": display_names(options.model),
        "dataset": data.name,
        "split": loaders["split"],
        **as_data(found, names, positions),
    }
    print(json.dumps(results, indent=2) if options.json else as_table(results))
    written = write(results, found, plan, subspace, options)
    print("\n".join(f"  wrote {path}" for path in written), file=sys.stderr if options.json else sys.stdout)
    return 0


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, DataArguments]:
    """The options, with the data settings of the first model's run as defaults."""
    parser = make_parser(
        (DataArguments,), prog="evaluate.py", usage="evaluate.py --model NAME [--OPTION VALUE ...]", description=__doc__
    )
    add = parser.add_argument_group("Evaluation").add_argument
    add("--model", action="append", required=True, metavar="NAME", help="Folder or Hub id; several are compared.")
    add("--positions", type=int, default=21, metavar="N", help="Positions of a subspace to evaluate.")
    add(
        "--ensemble",
        action="store_true",
        help="Evaluate the ensemble of several models too. Ensembles of a subspace's positions always are.",
    )
    add(
        "--positions_at_once",
        type=int,
        default=32,
        metavar="N",
        help="Positions that share a pass over the data: more are faster and need more memory.",
    )
    add(
        "--recalibration_batches",
        type=int,
        default=RECALIBRATION_BATCHES,
        metavar="N",
        help="Training batches that the norm statistics of a position are taken from; 0 for all.",
    )
    add("--export_position", metavar="P", help="Write the network at a position (0.2, or weights 0.5,0.3,0.2) instead.")
    add("--output_dir", metavar="DIR", help="Where results go. Default: the first model's folder.")
    add("--batch_size", type=int, default=128, metavar="N", help="Images in a batch.")
    add("--num_workers", type=int, default=0, metavar="N", help="Processes that prepare images.")
    add("--seed", type=int, default=0, metavar="N", help="Of drawn positions and of the training images that are read.")
    add("--json", action="store_true", help="Print JSON instead of a table.")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", metavar="TEXT", help="Where to run.")
    first, _ = parser.parse_known_args(argv)
    parser.set_defaults(**data_settings(find_trained(first.model[0])))
    options = parser.parse_args(argv)
    fields = [field.name for field in dataclasses.fields(DataArguments)]
    return options, DataArguments(**{name: getattr(options, name) for name in fields})


def data_settings(source: ModelSource) -> dict[str, Any]:
    """The data settings of a model's run, as far as they are known."""
    if not has_file(source, "training_args.json"):
        return {}
    settings = json.loads(path_of(source, "training_args.json").read_text(encoding="utf-8"))
    names = {field.name for field in dataclasses.fields(DataArguments)} - {"label_noise"}
    return {name: value for name, value in settings.items() if name in names}


def find_trained(name: str) -> ModelSource:
    """Where a trained model is."""
    source = find_model(name)
    if source.kind == "timm":
        raise ValueError(
            f"{name!r} names an architecture without weights of a run: give a trained model's folder or id."
        )
    if any("CausalLM" in kind or "LMHead" in kind for kind in source.config.get("architectures") or ()):
        raise ValueError(
            f"{name!r} is a language model, and this script evaluates image classifiers: "
            "call hf_geo.evaluation.walk.walk(..., causal=True) on it."
        )
    return source


def display_names(models: Sequence[str]) -> list[str]:
    """The models' names, of folders the last part as far as that tells them apart."""
    short = [Path(name).resolve().name if Path(name).exists() else name for name in models]
    return [name if short.count(name) == 1 else full for name, full in zip(short, models, strict=True)]


def path_of(source: ModelSource, filename: str) -> Path:
    return Path(source.name, filename) if source.kind == "folder" else Path(download(source.name, filename))


def has_file(source: ModelSource, filename: str) -> bool:
    try:
        return path_of(source, filename).is_file()
    except EntryNotFoundError:
        return False


def open_model(source: ModelSource, data: ImageData) -> PreTrainedModel:
    """A trained model, which has to tell the data's classes apart."""
    config = source.config
    classes = config.get("num_classes") or len(config.get("id2label") or {}) or config.get("num_labels")
    if classes != data.num_classes:
        raise ValueError(
            f"{source.name!r} tells {classes} classes apart, but {data.name} has {data.num_classes}: "
            "evaluate it on the data set it was trained on."
        )
    return build_image_classifier(
        source.name, num_classes=data.num_classes, id2label=data.id2label, data_config=data.data_config
    )


def make_loaders(data: ImageData, config: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Loaders of the last split there is, and of training images as they are, in an order fixed by the seed."""
    split = "test" if "test" in data.splits else "eval"
    train = data.dataset("train", config, augment=False)
    shuffled = not isinstance(train, IterableDataset)
    settings = {"batch_size": options.batch_size, "num_workers": options.num_workers}
    return {
        "split": split,
        "evaluation": DataLoader(data.dataset(split, config), **settings),
        "recalibration": Repeatable(
            lambda: DataLoader(
                train,
                shuffle=shuffled,
                generator=torch.Generator().manual_seed(options.seed) if shuffled else None,
                **settings,
            )
        ),
    }


class Repeatable:
    """A loader that gives the same batches each time it is read."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __iter__(self) -> Any:
        return iter(self.make())

    def __len__(self) -> int:
        return len(self.make())


def check_export(options: argparse.Namespace, is_subspace: bool) -> None:
    if not is_subspace:
        raise ValueError(
            "--export_position needs one --model with a subspace (subspace_config.json beside its weights)."
        )
    if options.output_dir is None or Path(options.output_dir, "model.safetensors").exists():
        raise ValueError("--export_position writes a network: give a new folder for it with --output_dir.")


def export(model: PreTrainedModel, source: ModelSource, loader: Repeatable, options: argparse.Namespace) -> None:
    """Writes the network at a position, with norm statistics of that position."""
    subspace = Subspace.load(source.name, model)
    try:
        position = [float(word) for word in options.export_position.split(",")]
    except ValueError as error:
        raise ValueError(
            f"--export_position is a number, or weights separated by commas, not {options.export_position!r}."
        ) from error
    subspace.set_position(position[0] if len(position) == 1 else position)
    recalibrate_norms(model, loader, options.recalibration_batches or None)
    export_model(model, options.output_dir, state_dict=subspace.folded_state_dict())
    print(f"  wrote {options.output_dir}/model.safetensors with config.json: opens in timm and transformers")


def write(
    results: dict[str, Any], found: Walk, plan: Plan | None, subspace: Subspace | None, options: argparse.Namespace
) -> list[str]:
    """Writes evaluation.json, and of a subspace its figures and the card's section; returns what was written."""
    model_folder = options.model[0].removeprefix("local-dir:")
    if options.output_dir is None and not Path(model_folder).is_dir():
        return []
    folder = Path(options.output_dir or model_folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    written = [f"{folder}/evaluation.json"]
    if subspace is not None:
        title = f"{subspace.config.kind} on {results['dataset']}"
        figures = draw(found, plan, subspace.config, folder / "figures", title)
        figures = {f"figures/{name}": caption for name, caption in figures.items()}
        written += [f"{folder}/{name}" for name in figures]
        if (folder / "README.md").is_file():
            note = (
                f"Measured on {results['samples']:,} samples of the {results['split']} split, with norm statistics of "
                f"{results['recalibration_samples']:,} training samples at each position."
            )
            add_to_card(folder / "README.md", figures, as_table(results), note)
            written.append(f"{folder}/README.md")
    return written


if __name__ == "__main__":
    sys.exit(main())
