"""Reads the vectors of a vocabulary from a file of word vectors, which may be far larger than memory."""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

_ROWS = 65_536  # of a safetensors file, read at a time


def read_word_vectors(path: str | Path, words: Collection[str]) -> dict[str, torch.Tensor]:
    """Reads the vectors of `words`, and keeps no others.

    Args:
        path: A text file with a word and its numbers a line, separated by spaces, as GloVe's (a first line with two whole
            numbers, as fastText's, is skipped); or a `.safetensors` file with `vectors` (words, width) and `words`, the
            UTF-8 text of all words, a line each, as uint8.
        words: The vocabulary.

    Returns:
        Vectors, shape (width,), float32, by word; of a word that stands twice, the first.

    Raises:
        ValueError: The file cannot be read, is not of this form, or has none of the words.
    """
    path, wanted = Path(path), frozenset(words)
    read = _read_safetensors if path.suffix == ".safetensors" else _read_text
    found: dict[str, torch.Tensor] = {}
    try:
        for word, vector in read(path, wanted):
            found.setdefault(word, vector)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"The word vectors {str(path)!r} cannot be read ({reason}): give the path of their file."
        ) from error
    if not found:
        raise ValueError(
            f"{str(path)!r} has a vector for none of the {len(wanted):,} words of the training text: give vectors of its language."
        )
    return found


def _read_text(path: Path, wanted: frozenset[str]) -> Iterator[tuple[str, torch.Tensor]]:
    width = None
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.rstrip()
            if number == 1 and len(line.split()) == 2 and line.replace(b" ", b"").isdigit():
                continue  # fastText's numbers of words and of columns
            first, _, rest = line.partition(b" ")
            spaces = line.count(b" ")
            width = width or spaces
            try:
                word = first.decode()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"Line {number:,} of {str(path)!r} is not UTF-8: give a text file of word vectors in UTF-8, or safetensors."
                ) from error
            # A few of GloVe's words have spaces in them; none of a vocabulary's has.
            if spaces < width or spaces == 0 or (spaces > width and _is_number(rest.partition(b" ")[0])):
                expected = "a word and its numbers" if spaces == 0 else f"{width} numbers, as the first one has"
                raise ValueError(
                    f"Line {number:,} of {str(path)!r} does not hold {expected}: repair it, or get the file anew."
                )
            if spaces == width and word in wanted:
                yield word, _as_vector(rest, path, number)


def _read_safetensors(path: Path, wanted: frozenset[str]) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(path, "pt") as file:
        if not {"vectors", "words"} <= set(file.keys()):
            raise ValueError(
                f"{str(path)!r} holds {', '.join(file.keys()) or 'nothing'}: word vectors are a tensor `vectors` and the text "
                "`words`, a word a line, as uint8."
            )
        try:
            words = file.get_tensor("words").numpy().tobytes().decode().split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"The `words` of {str(path)!r} are not UTF-8: write the file anew.") from error
        rows = file.get_slice("vectors")
        shape = rows.get_shape()
        if len(shape) != 2 or shape[0] != len(words):
            raise ValueError(
                f"{str(path)!r} has {len(words):,} words and `vectors` of shape {tuple(shape)}: it takes a row a word."
            )
        for start in range(0, len(words), _ROWS):
            chosen = [i for i in range(start, min(start + _ROWS, len(words))) if words[i] in wanted]
            chunk = rows[start : start + _ROWS] if chosen else None
            for i in chosen:
                yield words[i], _finite(chunk[i - start].float(), path, i + 1)


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _as_vector(text: bytes, path: Path, number: int) -> torch.Tensor:
    try:
        vector = np.array(text.split(b" "), dtype=np.float32)
    except ValueError as error:
        raise ValueError(
            f"Line {number:,} of {str(path)!r} has something other than numbers behind its word: repair it, or get the file anew."
        ) from error
    return _finite(torch.from_numpy(vector), path, number)


def _finite(vector: torch.Tensor, path: Path, number: int) -> torch.Tensor:
    if not vector.isfinite().all():
        raise ValueError(
            f"The vector in line {number:,} of {str(path)!r} is not finite: repair it, or get the file anew."
        )
    return vector
