"""Where a data set's name points: the embedded digits, a folder, or the Hub."""

import errno
import glob
import logging
import os
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import yaml
from datasets.exceptions import DatasetsError, SplitsVerificationError
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hf_geo.hub.retries import causes, may_pass, persist

from .builders import open_builder

logger = logging.getLogger(__name__)
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT)
_BROKEN = (pa.ArrowInvalid, EOFError, zlib.error, SplitsVerificationError)

Rows = datasets.Dataset | datasets.IterableDataset
DIGITS = "digits"


@dataclass(frozen=True)
class Source:
    """An opened data set.

    Args:
        name: How to call it; of a folder the last part only.
        hub_id: Its id on the Hub, if it came from there.
        splits: Rows by split.
        files: The files that each split is read from, as far as they are known.
    """

    name: str
    hub_id: str | None
    splits: Mapping[str, Rows]
    files: Mapping[str, Collection[str]] = field(default_factory=dict)


def open_source(name: str | None, config: str | None = None, streaming: bool = False) -> Source:
    """Opens a data set; nothing is decoded yet.

    Args:
        name: "digits", a folder, or a Hub id.
        config: One of the data set's configurations.
        streaming: Read while iterating instead of downloading first.

    Raises:
        ValueError: There is no such data set, configuration or folder, or the Hub cannot be reached.
    """
    if not name:
        raise ValueError("No data set is named: give a Hub id, a folder or digits, as in --dataset uoft-cs/cifar10.")
    if name == DIGITS:
        if streaming or config:
            raise ValueError(
                "The embedded digits have no configurations and nothing to stream: leave these options out."
            )
        return Source(DIGITS, None, _digits())
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
        builder, splits = _load(name, config, streaming)
    except (OSError, ValueError, DatasetsError, yaml.YAMLError) as error:
        raise ValueError(_explain(name, is_folder, error)) from error
    files = {split: _sample_files(paths) for split, paths in (builder.config.data_files or {}).items()}
    return Source(Path(name).resolve().name if is_folder else name, None if is_folder else name, splits, files)


def _sample_files(paths: Iterable[str]) -> set[str]:
    """The files that hold samples, under one name each: links resolved, metadata that splits may share left out."""
    samples = (path for path in paths if not Path(path).name.startswith("metadata."))
    return {path if "://" in path else os.path.realpath(path) for path in samples}


def _load(name: str, config: str | None, streaming: bool) -> tuple[datasets.DatasetBuilder, Mapping[str, Rows]]:
    """Loads a data set, however often it takes; what is damaged in a cache is fetched and made again."""

    def load(mode: str | None = None) -> tuple[datasets.DatasetBuilder, Mapping[str, Rows]]:
        return persist(lambda: _build(name, config, streaming, mode), f"loading {name}")

    try:
        loaded = load()
        damage = None if streaming else _missing_rows(loaded[1])
    except (OSError, ValueError, DatasetsError) as error:
        damage = _damage(error)
        if damage is None:
            raise
    if damage is None:
        return loaded
    logger.warning("What is cached of %s cannot be used (%s): it is made again from its source.", name, damage)
    return load("force_redownload")


def _build(
    name: str, config: str | None, streaming: bool, mode: str | None
) -> tuple[datasets.DatasetBuilder, Mapping[str, Rows]]:
    """What `datasets.load_dataset` does, once it is known that the card names no files of other places.

    Raises:
        ValueError: It does: such a card could have any file of this machine read as data.
    """
    builder = open_builder(name, config, mode)
    home = os.path.realpath(name) + os.sep if os.path.isdir(name) else f"hf://datasets/{name}@"
    for file in (file for files in (builder.config.data_files or {}).values() for file in files):
        place = file if "://" in file else os.path.abspath(file)
        if not place.startswith(home) or ".." in place.split("/"):
            raise ValueError(f"its card names a file of another place, {file!r}; take that out of its README.md")
    if streaming:
        return builder, builder.as_streaming_dataset()
    builder.download_and_prepare(download_mode=mode)
    return builder, builder.as_dataset()


def _damage(error: BaseException) -> str | None:
    """What of an error says that a file's content is broken; None for other errors."""
    for cause in () if may_pass(error) else causes(error):
        # Unlike the system's errors, those that pyarrow makes of what it reads have no number.
        unreadable = type(cause) is OSError and cause.errno is None
        gone = isinstance(cause, FileNotFoundError) and ".arrow" in str(cause)
        if unreadable or gone or isinstance(cause, _BROKEN):
            return " ".join(str(cause).split()) or type(cause).__name__
    return None


def _missing_rows(splits: Mapping[str, datasets.Dataset]) -> str | None:
    """A file cut at the right place reads as a shorter one."""
    for name, rows in splits.items():
        known = (rows.info.splits or {}).get(name)
        if known is not None and known.num_examples != len(rows):
            return f"{len(rows)} instead of {known.num_examples} rows in {name}"
    return None


def _refused_cache(error: BaseException) -> str | None:
    """A sentence where the cache of data sets cannot be written, whatever was to be read; None for other errors."""
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
    if refused := _refused_cache(error):
        return refused
    generating = isinstance(error, datasets.exceptions.DatasetGenerationError)  # which hides what it was
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


def _digits() -> dict[str, datasets.Dataset]:
    """scikit-learn's handwritten digits (Alpaydin and Kaynak 1998), a fixed fifth of each class held out as the test split."""
    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[str(n) for n in data.target_names])}
    )
    train, test = train_test_split(np.arange(len(images)), test_size=0.2, stratify=data.target, random_state=0)
    return {
        split: datasets.Dataset.from_dict(
            {"image": [PIL.Image.fromarray(images[i]) for i in indices], "label": data.target[indices]},
            features=features,
        )
        for split, indices in (("train", np.sort(train)), ("test", np.sort(test)))
    }
