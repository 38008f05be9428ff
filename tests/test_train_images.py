"""An image classifier of transformers: the figures of its card are those of the exported folder, opened by transformers."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from hf_geo.data import DataArguments, load_image_data
from hf_geo.data.image_datasets import decode
from tests.models.test_image_processors import save
from tests.models.tiny import RESNET, VIT
from tests.scripts import script

QUIET = ("--disable_tqdm", "true", "--report_to", "none", "--optim", "fromage")


def figures(folder: Path, images: Sequence[PIL.Image.Image], labels: torch.Tensor) -> dict[str, float]:
    """What the exported network makes of images as its exported image processor prepares them."""
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = torch.cat([model(**processor(image, return_tensors="pt")).logits for image in images])
    return {
        "test_loss": float(torch.nn.functional.cross_entropy(logits, labels)),
        "test_accuracy": float((logits.argmax(1) == labels).float().mean()),
    }


def test_digits_by_a_network_with_an_image_processor(tmp_path, capsys) -> None:
    processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.6, resample=0)
    start = save(tmp_path / "start", "resnet", RESNET, processor)
    words = ("--model", start, "--dataset", "digits", "--max_steps", "40", "--image_size", "24")
    assert script("train")([*words, "--max_eval_samples", "64", *QUIET, "--output_dir", tmp_path / "run"]) == 0
    assert "opens in transformers" in capsys.readouterr().out
    exported = AutoImageProcessor.from_pretrained(tmp_path / "run")
    assert (exported.size["shortest_edge"], exported.crop_pct) == (24, 0.6)
    assert AutoConfig.from_pretrained(tmp_path / "run").id2label == {i: str(i) for i in range(10)}

    split = load_image_data(DataArguments(dataset="digits", max_eval_samples=64)).splits["test"]
    images = [decode(row["image"]).convert("RGB") for row in split.rows]
    printed = json.loads((tmp_path / "run/eval_results.json").read_text())
    for name, value in figures(tmp_path / "run", images, torch.from_numpy(split.labels)).items():
        assert printed[name] == pytest.approx(value, rel=1e-5), name

    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert "3 x 24 x 24" in card.content
    assert card.data.library_name == "transformers" and "timm.create_model" not in card.content
    told = [path for path in (tmp_path / "run").glob("*.*") if path.suffix in (".json", ".md")]
    assert [path.name for path in told if str(tmp_path) in path.read_text()] == []

    # Evaluated again, it is by the export's own preparation, which no option changes.
    assert script("evaluate")(["--model", tmp_path / "run", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["points"][0]
    assert again["accuracy"] == pytest.approx(printed["test_accuracy"])
    with pytest.raises(SystemExit):
        script("evaluate")(["--model", tmp_path / "run", "--image_size", "32"])
    assert "--image_size 32 is not how" in capsys.readouterr().err


SMALL = {"height": 32, "width": 32}
SHORT = {"shortest_edge": 36}
VIT32 = {**VIT, "image_size": 32}
SWIN = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2}
MOBILEVIT = {"image_size": 32, "hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [4, 4, 8, 8, 8, 8, 8],
             "num_attention_heads": 2}  # fmt: skip
# Kind of network, its configuration, its image processor (None: it has none) and further options.
FAMILIES = {
    "vit": (VIT32, transformers.ViTImageProcessor(size=SMALL), ()),
    "deit": ({**VIT32, "architectures": ["DeiTForImageClassification"]}, transformers.DeiTImageProcessor(size={"height": 40, "width": 40}, crop_size=SMALL), ()),
    "beit": (VIT32, transformers.BeitImageProcessor(size=SHORT, do_center_crop=True, crop_size=SMALL, resample=1), ()),
    "siglip": ({"vision_config": VIT32, "text_config": {}}, transformers.SiglipImageProcessor(size=SMALL, do_rescale=False), ()),
    "swin": (SWIN, transformers.ViTImageProcessor(size=SMALL, do_normalize=False), ()),
    "convnext": ({"hidden_sizes": [4, 8], "depths": [1, 1], "num_stages": 2}, transformers.ConvNextImageProcessor(), ("--image_size", "64")),
    "mobilevit": (MOBILEVIT, transformers.MobileViTImageProcessor(size=SHORT, crop_size=SMALL), ("--augmentation", "timm")),
    "resnet": (RESNET, None, ("--image_size", "48")),
    "dinov2": (VIT32, None, ()),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAMILIES)
def test_photos_by_a_family(kind, tmp_path) -> None:
    rng = np.random.default_rng(0)
    images = []
    for split in ("train", "test"):
        for label in range(3):
            (tmp_path / f"data/{split}/{label}").mkdir(parents=True)
            for index in range(8):  # the class is where the bright square is
                pixels = rng.integers(0, 120, (70, 110 + 10 * index, 3), dtype=np.uint8)
                pixels[20:50, 40 * label : 40 * label + 30] += 100
                images.append(PIL.Image.fromarray(pixels))
                images[-1].save(tmp_path / f"data/{split}/{label}/{index}.png")
    config, processor, more = FAMILIES[kind]
    start = save(tmp_path / "start", kind, config, processor)
    words = ("--model", start, "--dataset", tmp_path / "data", "--max_steps", "20", *more)
    assert script("train")([*words, *QUIET, "--output_dir", tmp_path / "run"]) == 0
    printed = json.loads((tmp_path / "run/eval_results.json").read_text())
    for name, value in figures(tmp_path / "run", images[24:], torch.arange(3).repeat_interleave(8)).items():
        assert printed[name] == pytest.approx(value, rel=1e-4), name
