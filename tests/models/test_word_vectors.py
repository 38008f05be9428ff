"""Word vectors of a file: the vocabulary's rows and no others, from text and safetensors, and files that are none."""

import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hf_geo.models.text_classifiers import read_word_vectors

WORDS = {"cat", "naïve", "zebra"}
EXPECTED = {"cat": [1.0, -2.5], "naïve": [0.5, 3e-3]}
LINES = "cat 1.0 -2.5\nnaïve 0.5 3e-3\n. . . 7 8\nat name@domain.com 7 8\ncat 9 9\nother 4 4\n"


def as_tensors(folder: Path, words: str = "cat\nnaïve\nother", rows: int = 3) -> Path:
    vectors = torch.tensor([[1.0, -2.5], [0.5, 3e-3], [4.0, 4.0], [5.0, 5.0]], dtype=torch.float64)[:rows]
    text = torch.frombuffer(bytearray(words.encode()), dtype=torch.uint8)
    save_file({"vectors": vectors, "words": text}, folder / "vectors.safetensors")
    return folder / "vectors.safetensors"


def as_text(folder: Path, content: str | bytes = LINES) -> Path:
    (folder / "vectors.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "vectors.txt"


@pytest.mark.parametrize("write", [as_text, lambda folder: as_text(folder, f"6 2\n{LINES}"), as_tensors])
def test_the_vocabularys_rows_are_read(tmp_path, write) -> None:
    found = read_word_vectors(write(tmp_path), WORDS)
    assert found.keys() == EXPECTED.keys()
    for word, values in EXPECTED.items():
        torch.testing.assert_close(found[word], torch.tensor(values))


def test_a_large_file_is_streamed(tmp_path) -> None:
    line = " ".join(["0.12345"] * 50)
    path = as_text(tmp_path, "".join(f"word{i} {line}\n" for i in range(20_000)))
    tracemalloc.start()
    found = read_word_vectors(path, {"word7", "word19999"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 2 and peak < 300_000 < path.stat().st_size / 20


BAD = {
    "cat 1 2\ndog 1\n": "Line 2 of .* does not hold 2 numbers, as the first one has: repair it",
    "cat 1 2\ndog 1 2 3\n": "Line 2 of .* does not hold 2 numbers",
    "cat\n": "Line 1 of .* does not hold a word and its numbers",
    "cat 1 2\n\n": "Line 2 of .* does not hold a word and its numbers",
    "cat 1 two\n": "Line 1 of .* has something other than numbers behind its word",
    "cat 1 nan\n": "The vector in line 1 of .* is not finite",
    "dog 1 2\n": "has a vector for none of the 3 words of the training text: give vectors of its language",
    "": "has a vector for none of the 3 words",
    "cat 1 2\n".encode("utf-16"): "Line 1 of .* is not UTF-8: give a text file of word vectors in UTF-8",
    b"d 1 2\n\xe9t\xe9 1 2\n": "Line 2 of .* is not UTF-8",
}


@pytest.mark.parametrize("content", BAD, ids=repr)
def test_files_that_are_not_word_vectors(tmp_path, content) -> None:
    with pytest.raises(ValueError, match=BAD[content]):
        read_word_vectors(as_text(tmp_path, content), WORDS)


def test_tensors_that_are_not_word_vectors(tmp_path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(as_tensors(tmp_path).read_bytes()[:90])
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    for path, message in (
        (tmp_path / "gone.txt", "cannot be read .No such file or directory.: give the path of their file"),
        (tmp_path / "cut.safetensors", "cannot be read"),
        (tmp_path / "other.safetensors", "holds weight: word vectors are a tensor `vectors`"),
        (as_tensors(tmp_path, rows=2), "has 3 words and `vectors` of shape .2, 2.: it takes a row a word"),
    ):
        with pytest.raises(ValueError, match=message):
            read_word_vectors(path, WORDS)
