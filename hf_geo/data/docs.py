"""The embedded data set `docs`: CPython's own documentation topics, English prose that every Python brings along."""

import re
from pydoc_data.topics import topics

from datasets import Dataset, DatasetDict

WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
RUN = 20  # consecutive paragraphs that stay in one split


def load_docs() -> DatasetDict:
    """The paragraphs of Python's documentation topics, one a row in the column `text`, with a line end.

    Words and punctuation are set apart by spaces, as in WikiText. Repeated paragraphs, tables and grammar rules are left
    out. Of every ten runs of 20 consecutive paragraphs, eight are for training, one for validation, one for testing. The
    text is that of the running Python, so numbers compare only within one version of it.

    Returns:
        The splits "train", "validation" and "test": together some 70,000 words.
    """
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for i, paragraph in enumerate(_paragraphs()):
        splits[{8: "validation", 9: "test"}.get(i // RUN % 10, "train")].append(paragraph)
    return DatasetDict({name: Dataset.from_dict({"text": rows}) for name, rows in splits.items()})


def _paragraphs() -> list[str]:
    found: dict[str, None] = {}  # an ordered set: topics repeat each other's sections
    for _, text in sorted(topics.items()):
        for paragraph in re.split(r"\n\s*\n", text):
            lines = [line for line in paragraph.splitlines() if not re.fullmatch(r"[*=~^\"-]*", line.strip())]
            if lines and "::=" not in paragraph and "+--" not in paragraph:
                found[" ".join(WORD.findall(" ".join(lines))) + "\n"] = None
    return list(found)
