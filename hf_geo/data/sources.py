"""Opens what the name of a dataset points to: an embedded dataset, a folder, or the Hub.

scikit-learn's digits, Python's own documentation and definitions of WordNet are embedded: they need no network.
"""

import errno
import glob
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics

import datasets
import numpy as np
import PIL.Image
import yaml
from datasets.exceptions import DatasetsError
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES
from sklearn.datasets import load_digits as load_sklearn_digits
from sklearn.model_selection import train_test_split
from timm.data import ImageNetInfo

from hf_geo.embedded import DIGITS, DOCS, GLOSSES
from hf_geo.errors import causes

from .loading import Rows, load_dataset

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_RUN = 20  # consecutive paragraphs that stay in one split
# WordNet numbers its nouns file by file, so that a range of numbers is a kind of thing.
_KINDS = {
    "animal": (1_313_093, 2_665_500),
    "artifact": (2_665_500, 4_614_000),
    "food": (7_555_000, 7_941_000),
    "person": (9_605_110, 11_000_000),
    "plant": (11_530_000, 13_240_000),
}
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


def open_source(
    name: str | None,
    config: str | None = None,
    streaming: bool = False,
    *,
    config_is_named: str = "with --dataset_config",
) -> Source:
    """Opens a dataset, without decoding anything yet.

    Args:
        name: One of `hf_geo.embedded`, a folder, or a Hub id.
        config: One of the dataset's configurations.
        streaming: Read while iterating instead of downloading first.
        config_is_named: How a user names the configuration, for the message.

    Raises:
        ValueError: There is no such dataset, configuration or folder, or the Hub cannot be reached.
    """
    if not name:
        raise ValueError("No data set is named: give a Hub id, a folder or digits, as in --dataset uoft-cs/cifar10.")
    if name in _EMBEDDED:
        if streaming or config:
            raise ValueError(
                f"The embedded {name} have no configurations and nothing to stream: leave these options out."
            )
        return Source(name, None, _EMBEDDED[name]())
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
        raise ValueError(
            _explain_unwritable_cache(error) or _explain(name, is_folder, error, config_is_named)
        ) from error
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


def _explain(name: str, is_folder: bool, error: Exception, config_is_named: str) -> str:
    generating = isinstance(error, datasets.exceptions.DatasetGenerationError)  # its cause says what went wrong
    said = " ".join(str(error.__cause__ if generating and error.__cause__ else error).split())
    if "onfig" in said and "vailable" in said:
        said = said.partition(" Example of usage")[0] + f": name one {config_is_named}."
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


def load_digits() -> datasets.DatasetDict:
    """1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak 1998); a fixed fifth of each class is the test split."""
    data = load_sklearn_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    classes = datasets.ClassLabel(names=[str(name) for name in data.target_names])
    features = datasets.Features({"image": datasets.Image(), "label": classes})
    train, test = train_test_split(np.arange(len(images)), test_size=0.2, stratify=data.target, random_state=0)

    def rows(indices: np.ndarray) -> datasets.Dataset:
        columns = {"image": [PIL.Image.fromarray(images[i]) for i in indices], "label": data.target[indices]}
        return datasets.Dataset.from_dict(columns, features=features)

    return datasets.DatasetDict({"train": rows(np.sort(train)), "test": rows(np.sort(test))})


def load_docs() -> datasets.DatasetDict:
    """The paragraphs of Python's documentation topics, one a row in the column `text`, each with a line end.

    Spaces set words and punctuation apart, as in WikiText. Repeated paragraphs, tables and grammar rules are left out. Of
    every ten runs of 20 consecutive paragraphs, eight are for training, one for validation and one for testing. The text
    is that of the running Python, so results compare only within one version of it.

    Returns:
        The splits "train", "validation" and "test": together some 70,000 words.
    """
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for i, paragraph in enumerate(_paragraphs()):
        splits[{8: "validation", 9: "test"}.get(i // _RUN % 10, "train")].append(paragraph)
    return datasets.DatasetDict({name: datasets.Dataset.from_dict({"text": rows}) for name, rows in splits.items()})


def _paragraphs() -> list[str]:
    found: dict[str, None] = {}  # an ordered set, because topics repeat each other's sections
    for _, text in sorted(topics.items()):
        for paragraph in re.split(r"\n\s*\n", text):
            lines = [line for line in paragraph.splitlines() if not re.fullmatch(r"[*=~^\"-]*", line.strip())]
            if lines and "::=" not in paragraph and "+--" not in paragraph:
                found[" ".join(_WORD.findall(" ".join(lines))) + "\n"] = None
    return list(found)


def load_glosses() -> datasets.DatasetDict:
    """WordNet's definitions of ImageNet's 21,841 nouns (Miller 1995), which come with timm, and what kind of thing each is.

    The columns are `text`, a definition without the noun itself, and `label`: animal, artifact, food, person or plant, as
    WordNet files its nouns. Nouns of other files and repeated definitions are left out. Of every ten definitions in the
    order of their nouns' numbers, eight are for training, one for validation and one for testing.

    Returns:
        The splits "train", "validation" and "test": together some 20,700 definitions.
    """
    info = ImageNetInfo("imagenet-22k")
    found: dict[str, int] = {}
    for synset in sorted(info.label_names()):
        kinds = [i for i, (first, end) in enumerate(_KINDS.values()) if first <= int(synset[1:]) < end]
        noun = info.label_name_to_description(synset)
        definition = info.label_name_to_description(synset, detailed=True).removeprefix(f"{noun}: ")
        if kinds:
            found.setdefault(definition, kinds[0])
    texts, labels = list(found), list(found.values())
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(_KINDS))})

    def rows(*places: int) -> datasets.Dataset:
        chosen = [i for i in range(len(texts)) if i % 10 in places]
        columns = {"text": [texts[i] for i in chosen], "label": [labels[i] for i in chosen]}
        return datasets.Dataset.from_dict(columns, features=features)

    return datasets.DatasetDict({"train": rows(*range(8)), "validation": rows(8), "test": rows(9)})


_EMBEDDED = {DIGITS: load_digits, DOCS: load_docs, GLOSSES: load_glosses}
