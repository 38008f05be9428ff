"""The options of scripts that evaluate trained models, on the data that the first of them was trained for by default."""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from hf_geo.data.config import DataArguments
from hf_geo.embedded import EMBEDDED
from hf_geo.evaluation.walk import RECALIBRATION_BATCHES
from hf_geo.models.adapters import find_base
from hf_geo.tasks import TASKS, EvaluationOptions, find_trained, read_run_settings

from .config import FieldParser
from .options import add_trust, at_least, device, seed

MOST_NEEDED = (
    "model", "method", "dataset", "output_dir", "positions", "ensemble", "trust", "select_position", "export_position",
    "batch_size",
)  # fmt: skip
# Options that describe the run's own dataset and do not carry over to another.
PARTS_OF_A_DATASET = (
    "dataset_config", "train_split", "eval_split", "eval_size", "test_split", "image_column", "label_column", "text_column",
    "text_pair_column",
)  # fmt: skip


def parse_trained(
    argv: Sequence[str] | None,
    add_options: Callable[[Callable[..., argparse.Action]], None],
    *,
    several: bool = True,
    recalibrates: bool = True,
    **parser_options: Any,
) -> tuple[argparse.Namespace, DataArguments]:
    """Parses `--model`, the script's own options, and those of the data with the settings of the first model's run.

    Args:
        argv: The command line; the process's own if None.
        add_options: Adds the script's own options, by the function it is given.
        several: Whether models are options, and results may be printed as JSON; else one model is named without an option.
        recalibrates: Whether norm statistics are taken at positions, and from how many batches is an option.
        **parser_options: Options of the parser.

    Raises:
        ValueError: There is no such model, or nothing says which data to evaluate it on.
    """
    parser = FieldParser((DataArguments,), first=MOST_NEEDED, **parser_options)
    add = parser.add_argument_group("Evaluation").add_argument
    if several:
        add(
            "--model",
            action="append",
            required=True,
            metavar="NAME",
            help="Folder or Hub id; give it again for each more.",
        )
        add("--json", action="store_true", help="Print JSON instead of a table.")
    else:
        add("model", nargs=1, metavar="FOLDER_OR_ID", help="Folder or Hub id of a trained model.")
    add_options(add)
    if recalibrates:
        add(
            "--recalibration_batches",
            type=at_least(0),
            default=RECALIBRATION_BATCHES,
            metavar="N",
            help="Training batches, changed at random as in training, of which norm statistics are taken at each position; 0 "
            "for all.",
        )
    add(
        "--batch_size",
        type=at_least(1),
        metavar="N",
        help="Samples in a batch. Default: by the task, such as 128 images.",
    )
    add("--num_workers", type=at_least(0), default=0, metavar="N", help="Processes that prepare samples.")
    add(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="Seed of drawn positions and of the training images that norm statistics are taken from.",
    )
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
    known = read_run_settings(find_trained(find_base(first.model[0]) or first.model[0]))
    dataset = known.get("dataset")
    trained_on_it = first.dataset in (None, dataset) or f"./{Path(first.dataset).name}" == dataset
    omitted = () if trained_on_it else PARTS_OF_A_DATASET
    trained_with = {name: known[name] for name in fields if name in known and name not in omitted}
    # Labels are evaluated without noise, an export knows how its images are resized, and norm statistics are those of the
    # images that the network was trained on, changed as they were there.
    unlike_training = {"label_noise": 0.0, "image_size": None, "eval_resize": None}
    parser.set_defaults(**{"augmentation": "none", **trained_with, **unlike_training})
    parser.set_defaults(dataset=dataset if is_known_anywhere(dataset) else None)
    options = parser.parse_args(argv)
    options.given = parser.find_given(sys.argv[1:] if argv is None else argv)
    if options.dataset is None:
        reason = f"was trained on {dataset!r}, whose path it does not keep" if dataset else "does not name its dataset"
        raise ValueError(f"{first.model[0]!r} {reason}: name the data with --dataset.")
    streamed, size = known.get("streaming"), known.get("eval_size")
    deciding = ("train_split", *(("eval_size",) if size or not streamed else ()), *(("streaming",) if size else ()))
    for name in deciding if trained_on_it else ():
        given, trained = getattr(options, name), known.get(name)
        if name in known and given != trained:
            raise ValueError(
                f"--{name} {given} would evaluate {first.model[0]!r}, trained with {trained}, on samples it was trained on: "
                "leave it out."
            )
    return options, DataArguments(**{name: getattr(options, name) for name in fields})


def evaluation_options(options: argparse.Namespace) -> EvaluationOptions:
    """How the models are opened and their data read, from parsed options."""
    return EvaluationOptions(
        options.batch_size, options.num_workers, options.seed, options.device, options.trust_remote_code
    )


def is_known_anywhere(dataset: str | None) -> bool:
    """Whether the dataset's name in a run's settings is enough to find it; of a folder they keep only the last part."""
    if dataset is None or dataset.startswith("./"):
        return False
    return "/" in dataset or dataset in EMBEDDED or any(dataset in task.datasets for task in TASKS.values())


def display_names(models: Sequence[str]) -> list[str]:
    """The models' names; a folder is shown by the last part of its path unless two share it."""
    short = [Path(name).resolve().name if Path(name).exists() else name for name in models]
    return [name if short.count(name) == 1 else full for name, full in zip(short, models, strict=True)]
