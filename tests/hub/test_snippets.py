"""Every snippet of every card runs as it stands on the exported folder, and gives the evaluation's own predictions."""

import contextlib
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import ViTImageProcessor

from hf_geo.data.config import DataArguments
from hf_geo.data.language import LanguageData
from hf_geo.data.text import load_text_data
from hf_geo.metrics import nll_per_row
from tests.models.tiny import bert, byte_tokenizer, gpt2, vit
from tests.scripts import script

QUIET = ("--max_steps=2", "--save_strategy=no", "--report_to=none", "--disable_tqdm=true", "--per_device_train_batch_size=4")  # fmt: skip
IMAGES = {
    "timm": ("--model=test_vit", "--image_size=32", "--subspace=line"),
    "timm, one channel": ("--model=test_resnet", "--model_args=in_chans=1", "--ema_decay=0.5"),
    "an architecture of ours": ("--model=mlp_depth", "--model_args=depth=2,width=8", "--subspace=simplex", "--layerwise=true"),
    "transformers": ("--model=vit-3",),
    "transformers, one channel": ("--model=vit-1", "--subspace=curve"),
}  # fmt: skip
TEXTS = {
    "words": ("--model=word_transformer", "--model_args=d_model=8,nhead=2,d_hid=8,nlayers=1", "--bptt=5", "--columns=4", "--subspace=line"),
    "tokens": ("--model=gpt2-tiny", "--swa_start=0"),
}  # fmt: skip

SENTENCES = {
    "pairs": ("--model=bilstm_nli", "--model_args=word_size=4,hidden_size=4,classifier_size=4", "--subspace=line"),
    "encoder": ("--model=bert-tiny", "--text_column=premise", "--train_sampling_strategy=group_by_length"),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """The working directory, with data and models: a user's names of folders are names here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("snippets"))
        rng = np.random.default_rng(0)
        for split, number in (("train", 6), ("test", 3)):
            for colour, name in enumerate("ab"):
                folder = Path("images", split, name)
                folder.mkdir(parents=True)
                for i in range(number):
                    pixels = rng.integers(0, 200, (70, 90, 3), np.uint8)
                    pixels[..., colour] += 50
                    PIL.Image.fromarray(pixels).save(folder / f"{i}.png")
        Path("texts").mkdir()
        for split in ("train", "test"):
            Path("texts", f"{split}.txt").write_text("to be or not to be that is the question\n" * 90)
        Path("sentences").mkdir()
        for split in ("train", "test"):
            rows = [f'"a ""{word}""",is it {word} or {other}?,{word}' for word in "ab" for other in "abc"]
            lines = "\n".join(["premise,hypothesis,label", *rows * 3])
            Path("sentences", f"{split}.csv").write_text(lines)
        bert(vocab_size=257).save_pretrained("bert-tiny")
        byte_tokenizer(pad_token="<|end|>").save_pretrained("bert-tiny")
        for channels in (1, 3):
            vit(num_channels=channels).save_pretrained(f"vit-{channels}")
            values = {"image_mean": [0.4] * channels, "image_std": [0.3] * channels}
            ViTImageProcessor(size={"height": 16, "width": 16}, **values).save_pretrained(f"vit-{channels}")
        byte_tokenizer(model_max_length=32).save_pretrained("gpt2-tiny")
        gpt2().save_pretrained("gpt2-tiny")
        yield


def train(dataset: str, words: tuple[str, ...]) -> tuple[Path, list[str]]:
    """A run's folder, and its card's snippets."""
    folder = Path("runs", words[0].partition("=")[2])
    with contextlib.redirect_stdout(io.StringIO()):
        assert script("train")([f"--dataset={dataset}", *words, *QUIET, f"--output_dir={folder}"]) == 0
    card = (folder / "README.md").read_text()
    return folder, re.findall(r"^```python\n(.*?)^```", card, re.M | re.S)


def run(snippet: str, folder: Path, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """The names that a snippet leaves, begun with `names`."""
    names = {} if names is None else names
    exec(snippet.replace("FOLDER", str(folder)), names)
    return names


def measured(folder: Path, snippet: str | None = None) -> dict[str, float]:
    """What the evaluation found: of the exported network, or at the position of its subspace that a snippet sets."""
    if snippet is None:
        values = json.loads((folder / "eval_results.json").read_text())
        return {name: values[f"test_{name}"] for name in ("loss", "accuracy") if f"test_{name}" in values}
    with contextlib.redirect_stdout(io.StringIO()):
        data = json.loads((folder / "training_args.json").read_text())["dataset"]
        assert script("evaluate")([f"--model={folder}", f"--dataset={data}", "--positions=6"]) == 0
    position = json.loads(re.search(r"set_position\((.*)\)", snippet)[1])
    points = json.loads((folder / "evaluation.json").read_text())["points"]
    (point,) = (p for p in points if np.array_equal(np.float32(p["position"]), np.float32(position)))
    return {name: point[name] for name in ("loss", "accuracy")}


def of_images(snippet: str, folder: Path, subspace: str | None = None) -> dict[str, float]:
    """Cross-entropy and accuracy over the test images, each opened by the snippet."""
    losses, hits = [], []
    for label, name in enumerate("ab"):
        for path in sorted(Path("images", "test", name).iterdir()):
            PIL.Image.open(path).save("image.png")
            names = run(snippet, folder)
            if subspace:
                run(f"{subspace}\n{snippet.splitlines()[-1]}", folder, names)
            logits = names["logits"].detach()
            losses.append(F.cross_entropy(logits, torch.tensor([label])).item())
            hits.append(logits.argmax().item() == label)
    return {"loss": float(np.mean(losses)), "accuracy": float(np.mean(hits))}


@pytest.mark.parametrize("kind", IMAGES)
def test_image_classifiers(kind: str) -> None:
    folder, snippets = train("images", IMAGES[kind])
    subspace = snippets.pop() if "set_position" in snippets[-1] else None
    assert (subspace is not None) == ("--subspace" in "".join(IMAGES[kind]))
    assert len(snippets) == (1 if kind.startswith("transformers") else 2)
    for snippet in snippets:
        assert of_images(snippet, folder) == pytest.approx(measured(folder), rel=1e-4), snippet
    if subspace:
        assert of_images(snippets[-1], folder, subspace) == pytest.approx(measured(folder, subspace), rel=1e-4)


@pytest.mark.parametrize("kind", TEXTS)
def test_language_models(kind: str, capsys) -> None:
    folder, snippets = train("texts", TEXTS[kind])
    names = run(snippets[0], folder)
    assert "to be" in capsys.readouterr().out
    text = load_text_data(DataArguments(dataset="texts"))
    layout = LanguageData(text, names["tokenizer"], DataArguments(bptt=5), longest=32)
    batches = DataLoader(layout.evaluation_set("test"), layout.eval_batch_size, collate_fn=layout.collate)

    def loss() -> float:
        with torch.no_grad():
            nll, tokens = sum(nll_per_row(names["model"](**b)["logits"], b["labels"]).sum(0) for b in batches)
        return (nll / tokens).item()

    assert loss() == pytest.approx(measured(folder)["loss"], rel=1e-4)
    for subspace in snippets[1:]:
        run(subspace, folder, names)
        assert loss() == pytest.approx(measured(folder, subspace)["loss"], rel=1e-4)
    assert len(snippets) == (2 if kind == "words" else 1)
    assert "norm statistics" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("kind", SENTENCES)
def test_text_classifiers(kind: str, capsys) -> None:
    folder, snippets = train("sentences", SENTENCES[kind])
    names = run(snippets[0], folder)
    assert capsys.readouterr().out.split()[-1] in ("a", "b")
    rows = list(csv.DictReader(Path("sentences", "test.csv").read_text().splitlines()))
    columns = ("premise", "hypothesis") if kind == "pairs" else ("premise",)

    def found() -> dict[str, float]:
        texts = [[row[column] for column in columns] for row in rows]
        batches = [names["tokenizer"](*row, return_tensors="pt") for row in texts]
        with torch.no_grad():
            logits = torch.cat([names["model"](**batch).logits for batch in batches])
        labels = torch.tensor(["ab".index(row["label"]) for row in rows])
        hits = (logits.argmax(1) == labels).double().mean().item()
        return {"loss": F.cross_entropy(logits, labels).item(), "accuracy": hits}

    assert found() == pytest.approx(measured(folder), rel=1e-4)
    for subspace in snippets[1:]:
        run(subspace, folder, names)
        assert found() == pytest.approx(measured(folder, subspace), rel=1e-4)
    assert len(snippets) == (2 if kind == "pairs" else 1)
