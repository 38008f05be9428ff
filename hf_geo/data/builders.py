"""What `datasets` would leave out of folders of files: images, labels, the ends of lines."""

import logging
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import PurePath

import datasets
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from datasets.packaged_modules.text.text import TextConfig

logger = logging.getLogger(__name__)


def open_builder(name: str, config: str | None, download_mode: str | None = None) -> datasets.DatasetBuilder:
    """The builder that `datasets` makes for a data set; of files with all images, labels and line ends there are.

    `datasets` guesses the splits from the names of files and folders. Where a file of a class folder is called after a split
    ("train.png"), it reads such files alone; where one split has no folders of classes (an unlabelled "test"), it drops the
    labels of all. Here the first are one training split, and a split without labels is left out, each with a warning.

    Args:
        name: A folder or a Hub id.
        config: One of the data set's configurations.
        download_mode: As `datasets` takes it.
    """
    builder = datasets.load_dataset_builder(name, config, download_mode=download_mode)
    if isinstance(builder.config, TextConfig):  # a line ends where the file says so, and a byte order mark is no text
        lines = {"keep_linebreaks": True, "encoding": "utf-8-sig"}
        return datasets.load_dataset_builder(name, config, download_mode=download_mode, **lines)
    if not isinstance(builder, ImageFolder):
        return builder

    def rebuild(files: DataFilesDict) -> datasets.DatasetBuilder:
        return datasets.load_dataset_builder("imagefolder", data_files=files, download_mode=download_mode)

    files = builder.config.data_files
    if os.path.isdir(name) and not _has_card(name):
        chosen = {file for paths in files.values() for file in paths}
        there = DataFilesList.from_patterns(["**"], base_path=os.path.realpath(name), allowed_extensions=_EXTENSIONS)
        left_out = [file for file in there if file not in chosen]
        if {PurePath(file).parent for file in left_out} & {PurePath(file).parent for file in _images(chosen)}:
            logger.warning(
                "%d files of %s have a name as of a split, such as %s, and %d beside them have not: all are one training "
                "split. Folders of these names make splits.",
                len(chosen), name, PurePath(sorted(chosen)[0]).name, len(left_out),
            )  # fmt: skip
            files = DataFilesDict(train=there)
            builder = rebuild(files)
        elif left_out:
            logger.warning(
                "%d images of %s are in no split, such as %s: they are not read.", len(left_out), name, left_out[0]
            )
    labelled = {split: paths for split, paths in files.items() if _has_classes(paths)}
    if labelled and len(labelled) < len(files) and not any(map(_is_metadata, chain.from_iterable(files.values()))):
        logger.warning(
            "The images of %s are in no folders of classes, so they have no labels: that split is not read.",
            " and ".join(f"{str(split)!r}" for split in files if split not in labelled),
        )
        builder = rebuild(DataFilesDict(labelled))
    return builder


_EXTENSIONS = [*ImageFolder.EXTENSIONS, *(extension.upper() for extension in ImageFolder.EXTENSIONS)]


def _has_card(folder: str) -> bool:
    """Whether a card may say which files are which split."""
    return any(os.path.isfile(os.path.join(folder, card)) for card in ("README.md", ".huggingface.yaml"))


def _is_metadata(file: str) -> bool:
    return PurePath(file).name in ImageFolder.METADATA_FILENAMES


def _images(files: Iterable[str]) -> list[str]:
    return [file for file in files if PurePath(file).suffix.lower() in ImageFolder.EXTENSIONS]


def _has_classes(files: Iterable[str]) -> bool:
    """Whether images lie in several folders of one depth, as `datasets` asks of folders of classes."""
    folders = {PurePath(file).parent for file in _images(files)}
    return len({folder.name for folder in folders}) > 1 and len({len(folder.parts) for folder in folders}) == 1
