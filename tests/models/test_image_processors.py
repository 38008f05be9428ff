"""The images of training and evaluation are those of the exported folder, whatever its image processor does."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from timm.data import create_transform
from transformers import AutoImageProcessor, AutoModelForImageClassification, BaseImageProcessor
from transformers.image_utils import SizeDict

from hf_geo.data import DataArguments, load_image_data
from hf_geo.data.transforms import TimmImages, TimmTransform, make_transform, seeded
from hf_geo.hub.export import export_model
from hf_geo.models import build_image_classifier, check_images, input_config
from hf_geo.models.image_processors import ProcessorImages, resized
from tests.data.images import photo
from tests.models.tiny import RESNET, VIT

SMALL = {"height": 48, "width": 64}
# Class and settings: every image processor of transformers' image classifiers that makes (3, H, W), then single settings.
PROCESSORS = [
    ("BeitImageProcessor", {}),
    ("BitImageProcessor", {}),
    ("CLIPImageProcessor", {}),
    ("ConvNextImageProcessor", {}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 64}, "crop_pct": 0.8}),
    ("DeiTImageProcessor", {}),
    ("EfficientNetImageProcessor", {"rescale_offset": True, "include_top": False}),
    ("Gemma3ImageProcessor", {}),
    ("LevitImageProcessor", {}),
    ("MobileNetV1ImageProcessor", {}),
    ("MobileNetV2ImageProcessor", {}),
    ("MobileViTImageProcessor", {}),
    ("PerceiverImageProcessor", {}),
    ("PoolFormerImageProcessor", {}),
    ("PoolFormerImageProcessor", {"crop_pct": None}),
    ("PPLCNetImageProcessor", {}),
    ("PvtImageProcessor", {}),
    ("SegformerImageProcessor", {}),
    ("SiglipImageProcessor", {}),
    ("ViTImageProcessor", {}),
    ("ViTImageProcessor", {"size": SMALL, "resample": 0}),
    ("ViTImageProcessor", {"size": SMALL, "do_normalize": False}),
    ("ViTImageProcessor", {"size": SMALL, "do_rescale": False, "do_normalize": False}),
    ("ViTImageProcessor", {"size": SMALL, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}),
    ("ViTImageProcessor", {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 36}}),
    ("CLIPImageProcessor", {"do_resize": False, "crop_size": SMALL}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 24}, "crop_size": SMALL}),
]  # fmt: skip
# One of each way to resize, crop and normalize.
KINDS = [PROCESSORS[i] for i in (1, 4, 5, 6, 7, 12, 15, 22, 24, 26)]
IDS = [f"{name} {json.dumps(settings)}" if settings else name for name, settings in PROCESSORS]


def write_images(root: Path, sizes: list[tuple[int, int]], mode: str = "RGB") -> Path:
    """A data set of two classes with an image of each size in each split."""
    for split in ("train", "test"):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for index, size in enumerate(sizes):
                photo(*size, mode).save(root / split / label / f"{index}.png")
    return root


def reopened(processor: BaseImageProcessor, folder: Path) -> BaseImageProcessor:
    processor.save_pretrained(folder)
    return AutoImageProcessor.from_pretrained(folder)


@pytest.mark.parametrize(("name", "settings"), PROCESSORS, ids=IDS)
def test_samples_are_what_the_exported_image_processor_makes(name, settings, tmp_path):
    data = load_image_data(DataArguments(dataset=str(write_images(tmp_path / "data", [(70, 110), (50, 40)]))))
    processor = getattr(transformers, name)(**settings)
    images = ProcessorImages(processor, 3, data.native_size)
    exported = reopened(processor, tmp_path / "export")
    samples = data.dataset("test", images)
    assert len(samples) == 4
    for index, sample in enumerate(samples):
        image = PIL.Image.open(tmp_path / f"data/test/{'ab'[index // 2]}/{index % 2}.png")
        expected = exported(image, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(sample["pixel_values"], expected.float(), rtol=0, atol=0)
        assert sample["pixel_values"].shape == images.size


@pytest.mark.parametrize("augmentation", ["crop-flip", "timm"])
@pytest.mark.parametrize(("name", "settings"), KINDS, ids=str)
def test_augmented_pixels_have_the_values_of_the_image_processor(name, settings, augmentation):
    processor = getattr(transformers, name)(**settings)
    images = ProcessorImages(processor, 3, (70, 110))
    if not images.divisible:
        assert name == "PPLCNetImageProcessor"  # which exchanges colours in both steps
        with pytest.raises(ValueError, match=f"no place for --augmentation {augmentation}: choose --augmentation none"):
            make_transform(images, augmentation, mirror=True)
        return
    transform = make_transform(images, augmentation, mirror=True)
    # An image of one colour stays one under all but shifts (black) and timm's colours, whatever its place and size.
    sample = transform(PIL.Image.new("RGB", (110, 70), (200, 100, 50)), np.uint64(3))
    assert sample.shape == images.size and sample.dtype == torch.float32
    ramp = PIL.Image.fromarray(np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2))
    where = {"do_resize": False, "do_center_crop": False}
    values = processor(ramp, return_tensors="pt", **{k: v for k, v in where.items() if hasattr(processor, k)})
    for channel, levels in zip(sample, values["pixel_values"][0, :, 0], strict=True):
        assert (channel.unique()[:, None] - levels).abs().min(1).values.max() < 1e-5
    others = [transform(photo(70, 110), np.uint64(seed)) for seed in range(2)]
    assert len({other.numpy().tobytes() for other in others}) > 1
    assert torch.equal(others[0], transform(photo(70, 110), np.uint64(0)))


def test_timms_augmentation_is_timms():
    config = {"input_size": (3, 48, 40), "interpolation": "bicubic", "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4),
              "crop_pct": 0.9, "crop_mode": "center"}  # fmt: skip
    image = photo(70, 110)
    with seeded(5):
        expected = create_transform(**config, is_training=True)(image)
    ours = TimmTransform(TimmImages(config))(image, np.uint64(5))
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "settings"), KINDS, ids=str)
def test_an_image_size_reaches_the_exported_processor(name, settings, tmp_path):
    processor = getattr(transformers, name)(**settings)
    exported = reopened(resized(processor, 64, 64, 3), tmp_path)
    for image in (photo(70, 110), photo(90, 30), photo(64, 64)):
        assert exported(image, return_tensors="pt")["pixel_values"].shape == (1, 3, 64, 64)
    for key in ("do_normalize", "do_rescale", "resample", "image_mean", "image_std", "crop_pct"):
        assert getattr(exported, key, None) == getattr(processor, key, None), key


@pytest.mark.parametrize(
    ("name", "settings", "found"),
    [  # the size that images come out at; what was cut off stays the same share
        ("MobileNetV1ImageProcessor", {}, {"size": {"shortest_edge": 73}, "crop_size": {"height": 64, "width": 64}}),
        ("ConvNextImageProcessor", {}, {"size": {"shortest_edge": 64}}),
        ("PerceiverImageProcessor", {}, {"size": {"height": 64, "width": 64}, "crop_size": {"height": 73, "width": 73}}),
        ("CLIPImageProcessor", {"do_center_crop": False}, {"size": {"shortest_edge": 64}, "do_center_crop": True}),
        ("PPLCNetImageProcessor", {}, {"resize_short": 73, "crop_size": {"height": 64, "width": 64}}),
        ("ViTImageProcessor", {"size": {"shortest_edge": 32}}, {"size": {"height": 64, "width": 64}}),
        ("ViTImageProcessor", {"do_resize": False}, {"size": {"height": 64, "width": 64}, "do_resize": True}),
    ],
)  # fmt: skip
def test_how_a_size_is_set(name, settings, found, tmp_path):
    settings = reopened(resized(getattr(transformers, name)(**settings), 64, 64, 3), tmp_path).to_dict()
    assert {key: settings[key] for key in found} == found


class Stubborn(transformers.ViTImageProcessor):
    """An image processor of somebody's own that takes note of no size."""

    def resize(self, image: torch.Tensor, size: object, **kwargs) -> torch.Tensor:
        return super().resize(image, SizeDict(height=48, width=48), **kwargs)


def test_processors_are_compared_and_a_size_that_cannot_be_set_is_refused():
    stubborn, other = (ProcessorImages(p, 3, (8, 8)) for p in (Stubborn(), transformers.ViTImageProcessor(resample=0)))
    assert stubborn == ProcessorImages(Stubborn(), 3, (9, 9)) != other
    with pytest.raises(ValueError, match="Stubborn of this model cannot be set to images of 64 x 64 pixels"):
        resized(Stubborn(), 64, 64, 3)


@pytest.mark.parametrize("settings", [{"do_resize": False}, {"size": {"shortest_edge": 40}}], ids=json.dumps)
def test_images_of_several_sizes_make_no_batch(settings, tmp_path):
    processor = transformers.ViTImageProcessor(**settings)
    several = load_image_data(DataArguments(dataset=str(write_images(tmp_path / "several", [(48, 64), (64, 48)]))))
    with pytest.raises(ValueError, match="images of several sizes, which make no batch: choose one with --image_size"):
        several.dataset("test", ProcessorImages(processor, 3, several.native_size))
    one = load_image_data(DataArguments(dataset=str(write_images(tmp_path / "one", [(48, 64), (48, 64)]))))
    sample = one.dataset("test", ProcessorImages(processor, 3, one.native_size))[0]["pixel_values"]
    expected = processor(photo(48, 64), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(sample, expected, rtol=0, atol=0)


def save(folder: Path, kind: str, config: dict, processor: BaseImageProcessor | None = None) -> str:
    """A network of transformers with random weights, in a folder with or without image processor."""
    config = transformers.AutoConfig.for_model(kind, num_labels=3, **config)
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return str(folder)


HGNET = {"stem_channels": [3, 4, 4], "stage_in_channels": [4, 8], "stage_mid_channels": [4, 4],
         "stage_out_channels": [8, 8], "stage_num_blocks": [1, 1], "stage_downsample": [False, True],
         "stage_light_block": [False, False], "stage_kernel_size": [3, 3], "stage_numb_of_layers": [1, 1],
         "hidden_sizes": [8, 8], "depths": [1, 1]}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "config", "native", "asked", "made", "size"),
    [
        ("vit", {**VIT, "image_size": [16, 24]}, (100, 80), None, "ViTImageProcessor", (3, 16, 24)),
        ("vit", {**VIT, "num_channels": 1}, (100, 80), None, "ViTImageProcessor", (1, 16, 16)),
        ("resnet", RESNET, (40, 48), None, "ConvNextImageProcessor", (3, 48, 48)),
        ("resnet", RESNET, (100, 80), None, "ConvNextImageProcessor", (3, 384, 384)),
        ("resnet", RESNET, (100, 80), 96, "ConvNextImageProcessor", (3, 96, 96)),
        ("hgnet_v2", HGNET, (8, 8), None, "ViTImageProcessor", (3, 32, 32)),
    ],
)
def test_a_model_without_image_processor_gets_one(kind, config, native, asked, made, size, tmp_path):
    model = build_image_classifier(save(tmp_path / "start", kind, config), num_classes=3)
    images = input_config(model, native_size=native, image_size=asked)
    assert (type(images.processor).__name__, images.size) == (made, size)
    check_images(model, "start", images.size)
    export_model(model, tmp_path / "export", processor=images.processor)
    exported = AutoImageProcessor.from_pretrained(tmp_path / "export")
    image = photo(70, 110, "L" if size[0] == 1 else "RGB")
    expected = exported(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(images.whole(image), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("channels", "made", "found"),
    [
        (3, "Siglip2ImageProcessor", r"a tensor of shape \(256, 768\)"),
        (1, "ViTImageProcessor", "3, 224, 224"),  # of three means
        (1, "CLIPImageProcessor", r"a tensor of shape \(3, 224, 224\)"),
    ],
)
def test_an_image_processor_that_does_not_fit_is_refused(channels, made, found, tmp_path):
    name = save(tmp_path, "vit", {**VIT, "num_channels": channels}, getattr(transformers, made)())
    model = build_image_classifier(name, num_classes=3)
    message = rf"images of {channels} channels?, .* its {made} makes no pixels .*\(.*{found}"
    with pytest.raises(ValueError, match=message):
        input_config(model)
