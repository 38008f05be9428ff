"""Each mistake ends `scripts/train.py` with status 2 and one sentence, before any training, with nothing written."""

from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image

from tests.paths import SHARED
from tests.scripts import script

CIFAR10 = str(SHARED / "hub/datasets/uoft-cs/cifar10")
GOOD = {"model": "test_resnet", "dataset": "digits", "optim": "fromage", "max_steps": "1"}


@pytest.fixture(scope="module")
def train():
    return script("train")


def write_config(folder: Path, text: str) -> dict[str, str]:
    (folder / "recipe.yaml").write_text(text)
    return {"config": str(folder / "recipe.yaml")}


def write_parquet(folder: Path, **columns) -> dict[str, str]:
    features = columns.pop("features", None)
    (folder / "data").mkdir()
    Dataset.from_dict(columns, features=features).to_parquet(folder / "data" / "train.parquet")
    return {"dataset": str(folder / "data")}


def labels_out_of_range(folder: Path) -> dict[str, str]:
    """A folder whose label column names two classes but holds a third."""
    images = [Image.fromarray(np.zeros((8, 8), np.uint8)) for _ in range(20)]
    options = write_parquet(folder, image=images, label=[0, 1] * 10)
    path = folder / "data" / "train.parquet"
    rows = Dataset.from_parquet(str(path), cache_dir=str(folder / "cache"))
    rows = rows.cast_column("label", ClassLabel(names=["a", "b"]))
    table = rows.data.table.set_column(1, rows.data.table.schema.field("label"), [[0, 7] * 10])
    Dataset(table, info=rows.info).to_parquet(path)
    return options


def not_images(folder: Path) -> dict[str, str]:
    features = Features({"image": Value("string"), "label": ClassLabel(names=["a", "b"])})
    return write_parquet(folder, image=["x"] * 20, label=[0, 1] * 10, features=features)


def unfinished(folder: Path) -> dict[str, str]:
    (folder / "out" / "checkpoint-5").mkdir(parents=True)
    return {"output_dir": str(folder / "out")}


def finished(folder: Path) -> dict[str, str]:
    (folder / "out").mkdir()
    (folder / "out" / "model.safetensors").write_bytes(b"weights")
    return {"output_dir": str(folder / "out")}


ROWS = {
    "optimizer": ({"optim": "fromag"}, "Unknown optimizer 'fromag'. Did you mean 'fromage'?"),
    "model": ({"model": "resnet_18"}, "Unknown model 'resnet_18'"),
    "no model": ({"model": None}, "No model is named"),
    "no data set": ({"dataset": None}, "No data set is named"),
    "folder": ({"dataset": "./gone/here"}, "There is no folder './gone/here'"),
    "train split": ({"train_split": "traning"}, "no split 'traning' (--train_split): it has train, test"),
    "eval split": ({"eval_split": "dev"}, "no split 'dev' (--eval_split)"),
    "image column": ({"dataset": CIFAR10, "image_column": "picture"}, "no column 'picture' (--image_column). The columns are img"),
    "label column": ({"dataset": CIFAR10, "label_column": "img"}, "'img' (--label_column) does not hold classes, integers or words"),
    "not an image": (not_images, "No image column is found"),
    "text as image": (lambda f: not_images(f) | {"image_column": "image"}, "'image' (--image_column) does not hold images"),
    "label range": (labels_out_of_range, "7"),
    "option": ({"optimm": "sgd"}, "unknown option --optimm=sgd: did you mean --optim?"),
    "value": ({"learning_rate": "fast"}, "invalid float value: 'fast'"),
    "optim_args key": ({"optim_args": "p_bond=1"}, "fromage has no setting 'p_bond': did you mean 'p_bound'?"),
    "optim_args value": ({"optim_args": "p_bound=big"}, "p_bound=big"),
    "optim_args range": ({"optim_args": "p_bound=-1.0"}, "-1.0"),
    "optim_args group": ({"optim_args": "geometry.lr=1"}, "no parameter group 'geometry'"),
    "learning rate": ({"learning_rate": "-0.5"}, "-0.5"),
    "weight decay": ({"weight_decay": "0.1"}, "fromage has no weight decay, but weight_decay=0.1 was given; bound the weights with p_bound"),
    "model_args": ({"model_args": "depht=3"}, "depht"),
    "config missing": ({"config": "gone.yaml"}, "'gone.yaml' cannot be read"),
    "config list": (lambda f: write_config(f, "- a"), "holds no mapping"),
    "config yaml": (lambda f: write_config(f, "a: ["), "is not YAML"),
    "config key": (lambda f: write_config(f, "learning_rat: 1"), "unknown option 'learning_rat'; did you mean 'learning_rate'?"),
    "samples": ({"max_train_samples": "0"}, "--max_train_samples must be at least 1, not 0"),
    "noise": ({"label_noise": "1.5"}, "--label_noise is a share between 0 and 1, not 1.5"),
    "finished": (finished, "holds a finished run"),
    "unfinished": (unfinished, "holds an unfinished run"),
    "nothing to resume": ({"resume_from_checkpoint": "true"}, "no checkpoint in"),
    "no checkpoint": ({"resume_from_checkpoint": "somewhere"}, "'somewhere' is not a checkpoint folder"),
    "push without token": ({"push_to_hub": "true", "hub_model_id": "ada/run"}, "There is no token to push to ada/run with: log in"),
    "push to nowhere": ({"push_to_hub": "true", "hub_model_id": "a/b/c"}, "'a/b/c' cannot be a repository's name"),
    "Hub unreachable": ({"dataset": "uoft-cs/cifar10"}, "uoft-cs/cifar10"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_one_sentence_and_nothing_written(train, name: str, tmp_path, capsys, monkeypatch) -> None:
    change, message = ROWS[name]
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    options = {**GOOD, "output_dir": str(tmp_path / "new"), **(change(tmp_path) if callable(change) else change)}
    before = {path: path.stat().st_mtime_ns for path in Path(options["output_dir"]).rglob("*")}
    with pytest.raises(SystemExit) as raised:
        train([f"--{key}={value}" for key, value in options.items() if value is not None])
    lines = capsys.readouterr().err.strip().splitlines()
    assert raised.value.code == 2
    assert lines[-1].startswith("train.py: error: ") and message in lines[-1]
    assert {path: path.stat().st_mtime_ns for path in Path(options["output_dir"]).rglob("*")} == before


def test_the_good_options_are_good(train, tmp_path, capsys) -> None:
    words = [f"--{key}={value}" for key, value in {**GOOD, "output_dir": str(tmp_path / "new")}.items()]
    assert train([*words, "--max_train_samples=32", "--disable_tqdm=true"]) == 0
    assert (tmp_path / "new" / "model.safetensors").is_file()
