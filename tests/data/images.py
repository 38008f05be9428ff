"""Images, and what writes data sets of them."""

import io
from pathlib import Path

import datasets
import numpy as np
import PIL.Image

from hf_geo.data import ImageData

# Asks for the pixels as they are stored.
RAW = {"input_size": (3, 8, 8), "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center",
       "mean": (0.0,) * 3, "std": (1 / 255,) * 3}  # fmt: skip


def config_for(data: ImageData, **changes) -> dict:
    """What a model trained from scratch would ask for."""
    return {**RAW, "input_size": (3, 32, 32), "crop_pct": 0.875, **data.data_config, **changes}


def photo(height: int, width: int, mode: str = "RGB") -> PIL.Image.Image:
    pixels = np.random.default_rng(height).integers(256, size=(height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels).convert(mode)


def shade(value: int, width: int = 8, height: int = 8) -> PIL.Image.Image:
    return PIL.Image.new("L", (width, height), value)


def encoded(image: PIL.Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write_shades(path: Path, shades: range) -> None:
    """A parquet file of images of one shade each, which are even or odd."""
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["even", "odd"]))
    rows = {"image": [shade(s) for s in shades], "label": [s % 2 for s in shades]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def write_files(folder: Path, names: list[str]) -> Path:
    """A folder of PNG files, each of its number's shade."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(shade(number)))
    return folder
