"""The embedded datasets: scikit-learn's digits, and the documentation that every Python brings along."""

import re
from pydoc_data.topics import topics

import datasets
import numpy as np
import PIL.Image
from sklearn.datasets import load_digits as load_sklearn_digits
from sklearn.model_selection import train_test_split

DIGITS, DOCS = "digits", "docs"
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_RUN = 20  # consecutive paragraphs that stay in one split


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
