"""The options of scripts/evaluate.py."""

import argparse
from collections.abc import Callable
from pathlib import Path

from .options import at_least
from .trained import PARTS_OF_A_DATASET

OF_A_SUBSPACE = ("select_position", "draws", "positions", "positions_at_once", "recalibration_batches")
# An export takes norm statistics from training samples, and reads nothing else.
OF_AN_EXPORT = {
    "model", "export_position", "output_dir", "recalibration_batches", "batch_size", "num_workers", "seed", "device",
    "trust_remote_code", "dataset", *PARTS_OF_A_DATASET, "streaming", "max_train_samples", "max_bad_samples",
    "augmentation", "crop_shift", "crop_border", "color_jitter",
}  # fmt: skip


def add_options(add: Callable[..., argparse.Action]) -> None:
    """Adds the options of scripts/evaluate.py."""
    add("--ece_bins", type=at_least(1), default=15, metavar="N", help="Bins of the calibration error.")
    averages = ("probabilities", "logits")
    add("--average", choices=averages, default=averages[0], help="What ensembles average.")
    add("--positions", type=at_least(2), default=21, metavar="N", help="Positions of a subspace to evaluate.")
    add("--draws", type=at_least(2), metavar="N", help="Random positions too, and ensembles of the first 2, 3, ... N.")
    add(
        "--ensemble",
        action="store_true",
        help="Evaluate the ensemble of several models too. Ensembles of a subspace's positions always are.",
    )
    add(
        "--trust",
        action="store_true",
        help="Measure how far the probabilities may be trusted: calibration in bins of equal mass, the risk-coverage curve, and "
        "temperature scaling, which is fitted on the validation split (not for language models).",
    )
    add(
        "--corruption",
        nargs="+",
        default=(),
        metavar="KIND",
        help="Evaluate on corrupted test images too: gaussian_noise, fog, jpeg_compression or any other of ImageNet-C's 19.",
    )
    severities = tuple(range(1, 6))
    add("--severity", nargs="+", type=int, choices=severities, default=severities, help="Severities of --corruption.")
    add(
        "--shifted_dataset",
        nargs="+",
        default=(),
        metavar="NAME[:CONFIG]",
        help="Evaluate on other data sets of the same classes too, such as a CIFAR-10-C: the test split or else "
        "the one for validation, the first whose labels are known; otherwise the only one.",
    )
    add(
        "--ood_dataset",
        metavar="NAME[:CONFIG]",
        help="A dataset of other images, with labels or without: measure whether confidence tells them apart.",
    )
    add(
        "--select_position",
        action="store_true",
        help="Choose the position of a subspace by the loss on the validation split, and report it on the test split.",
    )
    add(
        "--positions_at_once",
        type=at_least(2),
        default=32,
        metavar="N",
        help="Positions that share a pass over the data: more are faster and need more memory.",
    )
    add("--export_position", metavar="P", help="Write the network at a position (0.2, or weights 0.5,0.3,0.2) instead.")
    add(
        "--fid_model",
        metavar="NAME",
        help="In whose features generated images are compared with real ones, as for train.py. Default: those of the run.",
    )
    add("--output_dir", metavar="DIR", help="Where results go. Default: the first model's folder.")


def check_options(options: argparse.Namespace, *, is_subspace: bool) -> None:
    """Refuses options that would change nothing of what is evaluated or exported.

    Args:
        options: As parsed; `given` has the names of those that the command line has.
        is_subspace: Whether a subspace is evaluated, rather than networks.

    Raises:
        ValueError: There is such an option, or an export has no folder of its own.
    """
    if options.export_position is not None:
        _check_export(options, is_subspace)
    for name in OF_A_SUBSPACE:
        if name in options.given and not is_subspace:
            raise ValueError(f"--{name} is for a subspace: give one --model with a subspace_config.json.")
    if options.ensemble and not is_subspace and len(options.model) == 1:
        raise ValueError("--ensemble needs several models: give --model for each of them, or leave it out.")
    if "severity" in options.given and not options.corruption:
        raise ValueError("--severity needs a --corruption: name one, such as gaussian_noise, or leave --severity out.")


def _check_export(options: argparse.Namespace, is_subspace: bool) -> None:
    if not is_subspace:
        raise ValueError(
            "--export_position needs one --model with a subspace (subspace_config.json beside its weights)."
        )
    if idle := sorted(options.given - OF_AN_EXPORT):
        raise ValueError(f"--export_position writes a network and measures nothing: leave --{idle[0]} out.")
    if options.output_dir is None or Path(options.output_dir, "model.safetensors").exists():
        raise ValueError(
            f"--export_position {options.export_position} writes a network: give a new folder for it with --output_dir."
        )
