"""Trained folders to explore, small enough to make in every test, and their pages."""

import json
from pathlib import Path

from hf_geo.explore.app import open_page, parse
from hf_geo.explore.page import Page
from hf_geo.tasks import find_trained
from tests.evaluation.test_script import SETTINGS

QUICK = ("--positions=5", "--recalibration_batches=1", "--batch_size=32")
HOSTILE = "<img src=x onerror='window.hacked=1'>\"&$"


def page_of(folder: Path, *words: str) -> Page:
    """The page of a folder, as scripts/explore.py builds it."""
    options, data_args = parse([str(folder), *QUICK, *words])
    return open_page(find_trained(str(folder)), data_args, options)


def make_hostile(folder: Path) -> Path:
    """A data set of digits whose second class has HTML for a name, and a model of these classes."""
    import datasets

    from hf_geo.data.config import DataArguments
    from hf_geo.data.vision import load_image_data
    from hf_geo.hub.export import export_model
    from hf_geo.models.build import build_image_classifier
    from tests.wrong_calls import encoded, shade

    images = [{"bytes": encoded(shade(40 * (number % 5))), "path": None} for number in range(40)]
    names = datasets.ClassLabel(names=["plain", HOSTILE])
    features = datasets.Features({"image": datasets.Image(), "label": names})
    rows = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 20}, features)
    (folder / "data").mkdir(parents=True)
    rows.to_parquet(folder / "data" / "train.parquet")
    data = load_image_data(DataArguments(dataset=str(folder / "data")))
    model = build_image_classifier("test_resnet", num_classes=2, id2label=data.id2label, data_config=data.data_config)
    export_model(model, folder / "run")
    (folder / "run" / "training_args.json").write_text(json.dumps({**SETTINGS, "dataset": "./data"}))
    return folder / "run"
