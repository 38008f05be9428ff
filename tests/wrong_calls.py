"""Makes wrong calls of the scripts: rows of the table in tests/bad_inputs.py, and the files that they need."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet
from datasets import ClassLabel, Features, Value
from safetensors.torch import load_file, save_file

from hf_geo.data.config import DataArguments
from hf_geo.data.vision import load_image_data
from hf_geo.hub.export import export_model
from hf_geo.models.build import build_image_classifier
from tests.data.images import encoded, shade

Options = Mapping[str, Any]
WORD_MODEL = {"model": "word_transformer", "dataset": "docs", "bptt": 5, "model_args": "d_model=8,nhead=2,d_hid=8,nlayers=1"}  # fmt: skip
BILSTM = {"model": "bilstm_nli", "model_args": "word_size=4,hidden_size=4,classifier_size=4"}
GOOD: dict[str, Options] = {
    "train": {
        "model": "test_resnet", "dataset": "digits", "optim": "fromage", "max_steps": 1, "max_train_samples": 32,
        "max_eval_samples": 16, "output_dir": "new", "report_to": "none", "disable_tqdm": "true",
    },
    "evaluate": {"model": "line", "positions": 3, "recalibration_batches": 1},
    "inspect_model": {"model": "test_resnet"},
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A wrong call.

    Args:
        script: Which of `scripts/`.
        given: Options that differ from the good call's, words for a script without one, or what makes either in a folder.
        names: What of the sentence names the mistake.
        advises: What of the sentence says what to do.
        needs: Folders of the fixtures that the row changes a copy of.
        environment: Variables that are set.
    """

    script: str
    given: Options | Sequence[str] | Callable[[Path], Options]
    names: str
    advises: str
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def words(self, folder: Path) -> list[str]:
        """The command line, after the row's files are made in `folder`."""
        given = self.given(folder) if callable(self.given) else self.given
        if not isinstance(given, Mapping):
            return list(given)
        options = {**GOOD[self.script], **given}
        return [f"--{name}={value}" for name, value in options.items() if value is not None]


train, evaluate, inspect = (partial(Row, script) for script in ("train", "evaluate", "inspect_model"))
push, benchmark, explore = (partial(Row, script) for script in ("push", "benchmark", "explore"))


def number(option: str, value: Any, takes: str, **more: Any) -> Row:
    """A training argument out of its range."""
    return train({option: value, **more}, f"--{option} is", f"{takes}, not {value}.")


# Recipes


def recipe(text: str | bytes, names: str, advises: str, **options: Any) -> Row:
    def make(folder: Path) -> Options:
        (folder / "recipe.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return {"config": "recipe.yaml", **options}

    return train(make, names, advises)


# Data sets

CAT_DOG = ClassLabel(names=["cat", "dog"])


def table(images: Sequence[bytes], labels: Sequence[int] | None = None) -> Callable:
    """Makes a parquet file of encoded images and labels, which need not be of the two classes that are declared."""

    def make(folder: Path) -> Options:
        cells = [{"bytes": image, "path": None} for image in images]
        content = {"image": cells, "label": labels or [0, 1] * (len(images) // 2)}
        rows = datasets.Dataset.from_dict(content, Features({"image": datasets.Image(), "label": Value("int64")}))
        declared = Features({"image": datasets.Image(), "label": CAT_DOG}).arrow_schema.metadata
        (folder / "data").mkdir(exist_ok=True)
        written = rows.data.table.replace_schema_metadata(declared)
        pyarrow.parquet.write_table(written, folder / "data" / "train.parquet")
        return {"dataset": "data"}

    return make


def files(contents: Mapping[str, str | bytes], then: Callable | None = None, **options: Any) -> Callable:
    """Writes files below `data`, beside what `then` makes there."""

    def make(folder: Path) -> Options:
        for name, content in contents.items():
            path = folder / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if then:
            then(folder)
        return {"dataset": "data", **options}

    return make


def with_options(make: Callable, **options: Any) -> Callable:
    return lambda folder: {**make(folder), **options}


def one_class(folder: Path) -> Options:
    (folder / "data").mkdir()
    features = Features({"image": datasets.Image(), "label": Value("string")})
    rows = {"image": [{"bytes": PNG, "path": None}] * 20, "label": ["cat"] * 20}
    datasets.Dataset.from_dict(rows, features).to_parquet(folder / "data" / "train.parquet")
    return {"dataset": "data"}


def pairs(vectors: str | None = None, **options: Any) -> Callable:
    """A table of pairs of texts, and a file of word vectors."""
    rows = [f"a cat,a dog,{number % 2},{number / 2},x" for number in range(20)]
    lines = "\n".join(["premise,hypothesis,label,score,tag", *rows])
    if vectors is not None:
        options["word_vectors"] = "vectors.txt"
    return files(
        {"train.csv": lines}, lambda folder: (folder / "vectors.txt").write_text(vectors or ""), **{**BILSTM, **options}
    )


PNG = encoded(shade(0))
IMAGES = [PNG] * 20
CLASSES = {f"{name}/{index}.png": PNG for name in ("cat", "dog") for index in range(10)}


# Models


def model(spoil: Callable[[Path], object], **options: Any) -> dict[str, Any]:
    """A copy of a trained folder of timm, spoiled."""

    def make(folder: Path) -> Options:
        spoil(folder / "line")
        return {"model": "line", **options}

    return {"given": make, "needs": ("line",)}


def edit_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **changes}))

    return edit


def replace(name: str, content: bytes | str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(name: str, size: int = 200) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


class Payload:
    """What a pickle runs when it is opened without care: it leaves a file behind."""

    def __init__(self, path: str = "executed") -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return open, (self.path, "w")


CODE = {
    "AutoConfig": "mine.Config",
    "AutoModelForImageClassification": "mine.Model",
    "AutoModelForCausalLM": "mine.Model",
}
MINE = """
open("executed", "w").close()
from transformers import PretrainedConfig, PreTrainedModel


class Config(PretrainedConfig):
    model_type = "mine"


class Model(PreTrainedModel):
    config_class = Config
"""


def own_code(folder: Path, **changes: Any) -> None:
    """A model of transformers whose code lies beside it."""
    config = {"model_type": "mine", "auto_map": CODE, "architectures": ["Model"], "num_labels": 10, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(MINE)


# Merging


def perturb(folder: Path) -> None:
    """Other weights of the same network."""
    weights = load_file(folder / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def other_architecture(folder: Path) -> None:
    data = load_image_data(DataArguments(dataset="digits"))
    settings = {"num_classes": 10, "id2label": data.id2label, "data_config": data.data_config}
    export_model(build_image_classifier("test_resnet", model_args={"stem_width": 8}, **settings), folder)


def merging(
    method: str, *words: str, others: Sequence[str] = ("other",), change: Callable | None = perturb
) -> dict[str, Any]:
    """Merging a trained folder of timm with changed copies of it."""

    def make(folder: Path) -> Sequence[str]:
        for name in others:
            shutil.copytree(folder / "line", folder / name)
            if change:
                change(folder / name)
        models = [f"--model={name}" for name in ("line", *others)]
        return [f"--method={method}", *models, "--output_dir=new", *words]

    return {"script": "merge", "given": make, "needs": ("line",)}


# Checkpoints


def interrupted_run(train: Callable[[Sequence[str]], int], folder: Path) -> Path:
    """A run that stopped after one step."""
    options = {**GOOD["train"], "output_dir": folder, "save_strategy": "steps", "save_steps": 1}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert train([f"--{name}={value}" for name, value in options.items()]) == 0
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    return folder


def checkpoint(spoil: Callable[[Path], object], **options: Any) -> dict[str, Any]:
    """Resuming from a spoiled copy of a run's checkpoint, which its manifest still fits if it has none."""

    def make(folder: Path) -> Options:
        saved = folder / "run" / "checkpoint-1"
        (saved / "manifest.json").unlink(missing_ok=True)
        spoil(saved)
        resumed = {"output_dir": "run", "resume_from_checkpoint": "run/checkpoint-1", "max_steps": 2}
        return {**resumed, **options}

    return {"given": make, "needs": ("run",)}


def as_they_are(folder: Path) -> None:
    """Nothing is spoiled."""


def made(name: str, content: bytes = b"") -> Callable[[Path], Options]:
    """Makes a file in the output folder."""

    def make(folder: Path) -> Options:
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return {"output_dir": Path(name).parts[0]}

    return make


def pushed(*words: str) -> Callable[[Path], Sequence[str]]:
    """Makes a finished run in the folder `run`."""

    def make(folder: Path) -> Sequence[str]:
        (folder / "run").mkdir()
        for name, content in {"model.safetensors": "weights", "config.json": "{}"}.items():
            (folder / "run" / name).write_text(content)
        return words

    return make
