"""Loads folders and Hub datasets through `datasets`: nothing left out of folders of files, damaged caches made again."""

import logging
import os
import zlib
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import PurePath

import datasets
import pyarrow as pa
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.exceptions import DatasetsError, SplitsVerificationError
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from datasets.packaged_modules.text.text import TextConfig

from hf_geo.errors import causes
from hf_geo.hub.retries import may_pass, persist

logger = logging.getLogger(__name__)
_BROKEN = (pa.ArrowInvalid, EOFError, zlib.error, SplitsVerificationError)
_EXTENSIONS = [*ImageFolder.EXTENSIONS, *(extension.upper() for extension in ImageFolder.EXTENSIONS)]

Rows = datasets.Dataset | datasets.IterableDataset
Loaded = tuple[datasets.DatasetBuilder, Mapping[str, Rows]]


def load_dataset(name: str, config: str | None, streaming: bool) -> Loaded:
    """Loads a dataset, again after failures of the network that may pass; damaged files of the cache are fetched again.

    Args:
        name: A folder or a Hub id.
        config: One of the dataset's configurations.
        streaming: Read while iterating instead of downloading first.

    Returns:
        The builder, and rows by split.

    Raises:
        ValueError: The card names files outside of the dataset, which could be any file of this machine.
        OSError, ValueError, DatasetsError: As `datasets` raises them.
    """

    def load(mode: str | None = None) -> Loaded:
        return persist(lambda: _load_once(name, config, streaming, mode), f"loading {name}")

    try:
        loaded = load()
        damage = None if streaming else _find_missing_rows(loaded[1])
    except (OSError, ValueError, DatasetsError) as error:
        damage = _find_damage(error)
        if damage is None:
            raise
    if damage is None:
        return loaded
    logger.warning("The cached files of %s cannot be used (%s): they are made again from their source.", name, damage)
    return load("force_redownload")


def _load_once(name: str, config: str | None, streaming: bool, mode: str | None) -> Loaded:
    """Does what `datasets.load_dataset` does, after a check that the card names no files of other places."""
    builder = _open_builder(name, config, mode)
    homes = (f"hf://datasets/{name}@",)
    if os.path.isdir(name):  # `datasets` resolves links in its path unless a card names the files
        homes = (os.path.realpath(name) + os.sep, os.path.abspath(name) + os.sep)
    for file in chain.from_iterable((builder.config.data_files or {}).values()):
        place = file if "://" in file else os.path.abspath(file)
        if not place.startswith(homes) or ".." in place.split("/"):
            raise ValueError(f"its card names a file outside of it, {file!r}: remove that from its README.md")
    if streaming:
        return builder, builder.as_streaming_dataset()
    builder.download_and_prepare(download_mode=mode)
    return builder, builder.as_dataset()


def _find_damage(error: BaseException) -> str | None:
    """Describes a broken file that caused an error; None for other errors."""
    for cause in () if may_pass(error) else causes(error):
        # pyarrow raises OSError without a number for content that it cannot read; the system's errors have one.
        unreadable = type(cause) is OSError and cause.errno is None
        gone = isinstance(cause, FileNotFoundError) and ".arrow" in str(cause)
        if unreadable or gone or isinstance(cause, _BROKEN):
            return " ".join(str(cause).split()) or type(cause).__name__
    return None


def _find_missing_rows(splits: Mapping[str, datasets.Dataset]) -> str | None:
    """Describes a split with fewer rows than recorded: a file that ends early where a batch ends reads as a shorter one."""
    for name, rows in splits.items():
        recorded = (rows.info.splits or {}).get(name)
        if recorded is not None and recorded.num_examples != len(rows):
            return f"{len(rows)} instead of {recorded.num_examples} rows in {name}"
    return None


def _open_builder(name: str, config: str | None, mode: str | None) -> datasets.DatasetBuilder:
    """Opens the builder that `datasets` makes for a dataset, with all images, labels and line ends of folders of files."""
    builder = datasets.load_dataset_builder(name, config, download_mode=mode)
    if isinstance(builder.config, TextConfig):  # keep line ends as the file has them, and drop a byte order mark
        lines = {"keep_linebreaks": True, "encoding": "utf-8-sig"}
        return datasets.load_dataset_builder(name, config, download_mode=mode, **lines)
    if not isinstance(builder, ImageFolder):
        return builder
    files = _all_images(name, builder.config.data_files)
    files = _labelled_splits(files)
    if files is builder.config.data_files:
        return builder
    return datasets.load_dataset_builder("imagefolder", data_files=files, download_mode=mode)


def _all_images(name: str, files: DataFilesDict) -> DataFilesDict:
    """Makes one training split of all images where a file of a class folder has a split's name ("train.png").

    `datasets` takes such a name for a split, and would read the files so named and no others.
    """
    # A card may say which files make which split.
    if not os.path.isdir(name) or any(
        os.path.isfile(os.path.join(name, c)) for c in ("README.md", ".huggingface.yaml")
    ):
        return files
    chosen = set(chain.from_iterable(files.values()))
    everything = DataFilesList.from_patterns(["**"], base_path=os.path.realpath(name), allowed_extensions=_EXTENSIONS)
    left_out = [file for file in everything if file not in chosen]
    if {PurePath(file).parent for file in left_out} & {PurePath(file).parent for file in _images(chosen)}:
        logger.warning(
            "%d files of %s are named like a split, such as %s, and %d beside them are not: all of them are one training "
            "split. To make splits, use folders of these names.",
            len(chosen), name, PurePath(sorted(chosen)[0]).name, len(left_out),
        )  # fmt: skip
        return DataFilesDict(train=everything)
    if left_out:
        logger.warning(
            "%d images of %s are in no split, such as %s: they are not read.", len(left_out), name, left_out[0]
        )
    return files


def _labelled_splits(files: DataFilesDict) -> DataFilesDict:
    """Leaves out splits without class folders where others have them: `datasets` would drop the labels of all."""
    labelled = {split: paths for split, paths in files.items() if _has_class_folders(paths)}
    has_metadata = any(
        PurePath(file).name in ImageFolder.METADATA_FILENAMES for file in chain.from_iterable(files.values())
    )
    if not labelled or len(labelled) == len(files) or has_metadata:
        return files
    logger.warning(
        "The images of %s are not in class folders, so they have no labels: that split is not read.",
        " and ".join(f"{str(split)!r}" for split in files if split not in labelled),
    )
    return DataFilesDict(labelled)


def _images(files: Iterable[str]) -> list[str]:
    return [file for file in files if PurePath(file).suffix.lower() in ImageFolder.EXTENSIONS]


def _has_class_folders(files: Iterable[str]) -> bool:
    """Whether images lie in several folders of one depth, which `datasets` takes for classes."""
    folders = {PurePath(file).parent for file in _images(files)}
    return len({folder.name for folder in folders}) > 1 and len({len(folder.parts) for folder in folders}) == 1
