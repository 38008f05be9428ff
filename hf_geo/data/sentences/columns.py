"""The text column or the pair of them that is classified, and the label column."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..columns import find_label, is_string
from ..text import choose_text

# The names that the pairs of the usual benchmarks have.
USUAL_PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text", "text_pair"),
    ("question", "sentence"),
)


@dataclass(frozen=True)
class TextColumns:
    """The one or two text columns, and the label column as in `Columns`."""

    texts: tuple[str, ...]
    label: str
    class_names: tuple[str, ...] | None
    guessed: bool = False


def find_sentence_columns(
    features: Mapping[str, Any], text: str | None = None, pair: str | None = None, label: str | None = None
) -> TextColumns:
    """Finds the text column or the pair of them, and the label column.

    Where the user names no text column, a pair with usual names is found first, then a column "text", then the only one.

    Args:
        features: `datasets` features by column.
        text: The column of the texts, or of the first of a pair, if the user names it.
        pair: The column of the second texts, if the user names it.
        label: The label column, if the user names it.

    Raises:
        ValueError: A named column is missing, of another type or named twice, or no column or more than one could be meant.
    """
    found = find_label(features, label)
    strings = [name for name, feature in features.items() if is_string(feature) and name != found[0]]
    usual = next((pair for pair in USUAL_PAIRS if set(pair) <= set(strings)), None)
    if text is None and pair is None and usual:
        return TextColumns(usual, *found)
    for option, name in (("text_column", text), ("text_pair_column", pair)):
        if name == found[0]:
            raise ValueError(
                f"--{option} {name} is the column of the classes: name another one, or the classes with --label_column."
            )
    if pair is not None:
        choose_text(strings, features, pair, "--text_pair_column")
        if pair == text:
            raise ValueError(f"--text_pair_column {pair} is the text column itself: name the other one of the pair.")
    text = choose_text([name for name in strings if name != pair], features, text)
    return TextColumns((text,) if pair is None else (text, pair), *found)
