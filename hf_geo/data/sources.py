"""Opens what the name of a dataset points to: the embedded digits, a folder, or the Hub."""

import errno
import glob
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import yaml
from datasets.exceptions import DatasetsError
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

from hf_geo.errors import causes

from .embedded import DIGITS, load_digits
from .loading import Rows, load_dataset

_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Source:
    """An opened dataset.

    Args:
        name: Its name for people; of a folder's path the last part.
        hub_id: Its id on the Hub, if it came from there.
        splits: Rows by split.
        files: The files that each split is read from, as far as they are known.
    """

    name: str
    hub_id: str | None
    splits: Mapping[str, Rows]
    files: Mapping[str, Collection[str]] = field(default_factory=dict)


def open_source(name: str | None, config: str | None = None, streaming: bool = False) -> Source:
    """Opens a dataset, without decoding anything yet.

    Args:
        name: "digits", a folder, or a Hub id.
        config: One of the dataset's configurations.
        streaming: Read while iterating instead of downloading first.

    Raises:
        ValueError: There is no such dataset, configuration or folder, or the Hub cannot be reached.
    """
    if not name:
        raise ValueError("No data set is named: give a Hub id, a folder or digits, as in --dataset uoft-cs/cifar10.")
    if name == DIGITS:
        if streaming or config:
            raise ValueError(
                "The embedded digits have no configurations and nothing to stream: leave these options out."
            )
        return Source(DIGITS, None, load_digits())
    is_folder = os.path.isdir(name)
    if not is_folder and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ValueError(f"There is no folder {name!r} to read a data set from: look whether its path is right.")
    if not is_folder and name in _PACKAGED_DATASETS_MODULES:
        raise ValueError(
            f"{name!r} is a kind of data set, not one: give the folder with the files, as in --dataset ./data."
        )
    if is_folder and glob.has_magic(os.path.realpath(name)):
        raise ValueError(
            f"The path of the folder {name!r} has one of the characters *?[ in it, which `datasets` takes for a pattern of "
            "several names: rename the folder."
        )
    try:
        builder, splits = load_dataset(name, config, streaming)
    except (OSError, ValueError, DatasetsError, yaml.YAMLError) as error:
        raise ValueError(_explain_unwritable_cache(error) or _explain(name, is_folder, error)) from error
    files = {split: _sample_files(paths) for split, paths in (builder.config.data_files or {}).items()}
    return Source(Path(name).resolve().name if is_folder else name, None if is_folder else name, splits, files)


def _sample_files(paths: Iterable[str]) -> set[str]:
    """The files that hold samples, links resolved; metadata files are left out, because splits may share them."""
    samples = (path for path in paths if not Path(path).name.startswith("metadata."))
    return {path if "://" in path else os.path.realpath(path) for path in samples}


def _explain_unwritable_cache(error: BaseException) -> str | None:
    """A sentence for an error about a dataset cache that cannot be written; None for other errors."""
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno in _UNWRITABLE and cause.filename:
            place = Path(cause.filename)
            if cache.is_relative_to(place) or place.is_relative_to(cache):
                return (
                    f"The cache of data sets, {str(cache)!r}, cannot be written ({cause.strerror}): set HF_DATASETS_CACHE "
                    "to a folder that can."
                )
    return None


def _explain(name: str, is_folder: bool, error: Exception) -> str:
    generating = isinstance(error, datasets.exceptions.DatasetGenerationError)  # its cause says what went wrong
    said = " ".join(str(error.__cause__ if generating and error.__cause__ else error).split())
    if "onfig" in said and "vailable" in said:
        said = said.partition(" Example of usage")[0] + ": name one with --dataset_config."
    elif is_folder:
        said = f"{said.rstrip('.')}: repair it, or give a folder of parquet, CSV or JSON files, texts or images."
    if is_folder:
        return f"The folder {name!r} cannot be read as a data set: {said}"
    if isinstance(error, ConnectionError):
        return (
            f"{name!r} is no folder here, and the Hub cannot be reached to look for it there ({said}): check the network, "
            "or give the folder of a copy with --dataset."
        )
    return f"The Hub gives no data set {name!r}: {said}"
