"""Data sets that are too large to keep here, in the layout of the Hub: columns, classes, splits and image sizes are real.

The images are noise, a few of them in each split over and over, and there are only so many as the recipes hold out; texts
are random words.
"""

from pathlib import Path

import numpy as np
import PIL.Image
import yaml
from datasets import ClassLabel, Dataset, Features, Image, Value

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "the", "dog", "run", "after", "a", "ball", ","]


def classes(count: int) -> ClassLabel:
    return ClassLabel(names=[f"class {i}" for i in range(count)])


IMAGES = [  # id, configuration, image column, label columns, (width, height) of the images, mode, samples by split
    ("uoft-cs/cifar10", "plain_text", "img", {"label": 10}, [(32, 32)], "RGB", {"train": 5100, "test": 40}),
    ("uoft-cs/cifar100", "cifar100", "img", {"fine_label": 100, "coarse_label": 20}, [(32, 32)], "RGB",
     {"train": 5200, "test": 200}),
    ("ufldl-stanford/svhn", "cropped_digits", "image", {"label": 10}, [(32, 32)], "RGB",
     {"train": 6100, "test": 40, "extra": 100}),
    ("ylecun/mnist", "mnist", "image", {"label": 10}, [(28, 28)], "L", {"train": 100, "test": 40}),
    ("zh-plus/tiny-imagenet", "default", "image", {"label": 200}, [(64, 64)], "RGB", {"train": 400, "valid": 200}),
    ("ILSVRC/imagenet-1k", "default", "image", {"label": 1000}, [(500, 375), (333, 500)], "RGB",
     {"train": 40, "validation": 30, "test": 20}),
]  # fmt: skip


def noise(size: tuple[int, int], mode: str, rng: np.random.Generator) -> PIL.Image.Image:
    """Four by four random fields."""
    fields = rng.integers(256, size=(4, 4, 3)[: 3 if mode == "RGB" else 2], dtype=np.uint8)
    return PIL.Image.fromarray(fields).resize(size, PIL.Image.Resampling.NEAREST)


def write_data_set(folder: Path, config: str, splits: dict[str, Dataset]) -> None:
    """Parquet files, and a card that says which split they are."""
    (folder / config).mkdir(parents=True)
    files = []
    for split, rows in splits.items():
        name = f"{config}/{split}-00000-of-00001.parquet"
        rows.to_parquet(folder / name)
        files.append({"split": split, "path": name})
    card = yaml.safe_dump({"configs": [{"config_name": config, "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{card}---\n")


def write_all(seeds: Path) -> None:
    """Fills `seeds`, as `LocalHub` takes it, with all data sets that recipes name."""
    rng = np.random.default_rng(0)
    for name, config, image, labels, sizes, mode, lengths in IMAGES:
        features = Features({image: Image(), **{column: classes(count) for column, count in labels.items()}})
        splits = {}
        for split, length in lengths.items():
            pictures = [noise(size, mode, rng) for size in sizes for _ in range(5)]
            rows = {image: [pictures[i % len(pictures)] for i in range(length)]}
            hidden = name.startswith("ILSVRC") and split == "test"
            for column, count in labels.items():
                rows[column] = [-1 if hidden else i % count for i in range(length)]
            splits[split] = Dataset.from_dict(rows, features=features)
        write_data_set(seeds / "datasets" / name, config, splits)
    texts = {
        split: Dataset.from_dict({"text": [" ".join(rng.choice(WORDS, 200)) + " \n" for _ in range(lines)]})
        for split, lines in (("train", 400), ("validation", 60), ("test", 60))
    }
    write_data_set(seeds / "datasets" / "Salesforce/wikitext", "wikitext-2-v1", texts)
    classes_of_pairs = ClassLabel(names=["entailment", "neutral", "contradiction"])
    features = Features({"premise": Value("string"), "hypothesis": Value("string"), "label": classes_of_pairs})
    pairs = {
        split: Dataset.from_dict(
            {
                "premise": [" ".join(rng.choice(WORDS, 12)) for _ in range(rows)],
                "hypothesis": [" ".join(rng.choice(WORDS, 5)) for _ in range(rows)],
                "label": [i % 4 - 1 for i in range(rows)],  # -1 where annotators did not agree
            },
            features=features,
        )
        for split, rows in (("train", 200), ("validation", 80), ("test", 80))
    }
    write_data_set(seeds / "datasets" / "stanfordnlp/snli", "plain_text", pairs)
