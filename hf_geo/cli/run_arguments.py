"""The arguments of a training run, for every script that reads a recipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers.hf_argparser import HfArg

from hf_geo.data.config import DataArguments
from hf_geo.models.config import ModelArguments
from hf_geo.runs.folder import public_settings
from hf_geo.tasks import TASKS
from hf_geo.training.arguments import GeoTrainingArguments
from hf_geo.training.subspaces import SubspaceArguments

from .config import parse_command_line


@dataclass
class RunArguments:
    """The run as a whole."""

    _argument_group_name = "Run"

    task: str | None = HfArg(
        default=None, help=f"{', '.join(TASKS)}. Default: inferred from the model and the dataset."
    )
    overwrite: bool = HfArg(
        default=False, help="Replace what an earlier run left in --output_dir, its checkpoints included."
    )
    fallback_dir: str | None = HfArg(
        default=None,
        help="Where the result goes when the disk of --output_dir refuses it: full, read-only, over quota.",
    )


RUN_ARGUMENTS = (ModelArguments, DataArguments, SubspaceArguments, RunArguments, GeoTrainingArguments)


def resolve_settings(argv: Sequence[str], *, public: bool = True, **parser_options: Any) -> dict[str, Any]:
    """Returns the settings that a command line of scripts/train.py leads to.

    Args:
        argv: The command line.
        public: Leave out secrets and local paths, for what is shown or kept.
        **parser_options: Options of the parser, such as the `prog` that messages begin with.

    Raises:
        ValueError: The recipe cannot be used, or a setting is invalid.
        SystemExit: An option is unknown, or its value cannot be read.
    """
    *settings, chosen = parse_command_line(RUN_ARGUMENTS, argv, **parser_options)
    if not public:
        return {name: value for some in settings for name, value in vars(some).items()}
    return public_settings(*settings) | {"variant": chosen.variant}
