"""The options of scripts/evaluate.py."""

import argparse
from collections.abc import Callable

from .options import at_least


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
        help="Evaluate on other data sets of the same classes too, such as a CIFAR-10-C: the test split, or the only one.",
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
        help="In whose features generated images are compared with real ones, as for train.py.",
    )
    add("--output_dir", metavar="DIR", help="Where results go. Default: the first model's folder.")
