"""The options for the data."""

import math
from dataclasses import dataclass
from typing import Literal

from transformers.hf_argparser import HfArg


@dataclass
class DataArguments:
    """Which data to train and evaluate on, and how it is read."""

    _argument_group_name = "Data"

    dataset: str | None = HfArg(
        default=None,
        help="A Hub id (uoft-cs/cifar10), a folder in the same layout or with one folder of images a class, "
        "or one that needs no network: digits (1,797 real 8x8 images), docs (Python's documentation), glosses (definitions of "
        "five kinds of things) or repeat-copy (sequences of random bits, drawn anew for each batch).",
    )
    dataset_config: str | None = HfArg(default=None, help="Which of the data set's configurations.")
    train_split: str = HfArg(
        default="train",
        help="Split to train on, or several, as in train+extra. Of images, what is held out comes from the first alone.",
    )
    eval_split: str | None = HfArg(
        default=None,
        help="Split to evaluate on during training. Default: validation, val, valid or dev where there is one, "
        "else 10 %% held out from the training split, the same in every run. Never one that is trained on.",
    )
    eval_size: int | None = HfArg(
        default=None,
        help="How many training samples to hold out where there is no split to evaluate on. Default: a tenth; "
        "of a stream, which has no tenth, the number has to be given.",
    )
    test_split: str | None = HfArg(
        default=None, help="Split for the final figures. Default: test, where there is one with labels."
    )
    image_column: str | None = HfArg(default=None, help="Column of the images. Default: found.")
    label_column: str | None = HfArg(
        default=None, help="Column of the classes, numbers or words. Default: found; mere integers have to be named."
    )
    text_column: str | None = HfArg(default=None, help="Column of the texts. Default: found.")
    text_pair_column: str | None = HfArg(
        default=None, help="Column of the second texts, where pairs are classified. Default: found by usual names."
    )
    max_length: int | None = HfArg(
        default=None,
        help="Most tokens of a text or pair to classify; longer ones are cut. Default: what the model takes.",
    )
    lowercase: bool = HfArg(default=False, help="Whether a word-level tokenizer of a text classifier ignores case.")
    text_layout: Literal["auto", "stream", "blocks"] = HfArg(
        default="auto",
        help="stream: the text in columns, read in order in windows of --bptt words, as the word-level models of the "
        "literature; blocks: pieces of --block_size tokens, as usual for pretrained models. auto: by the tokenizer.",
    )
    columns: int | None = HfArg(
        default=None,
        help="Columns of the training stream, shared by all processes and accumulation steps. Default: as many as "
        "--per_device_train_batch_size gives each.",
    )
    eval_columns: int = HfArg(default=10, help="Columns of the stream in evaluation.")
    bptt: int = HfArg(default=35, help="Words of a window of the stream.")
    block_size: int | None = HfArg(
        default=None, help="Tokens of a block. Default: the tokenizer's longest text, 1,024 at most."
    )
    min_frequency: int = HfArg(
        default=1, help="Words that occur less often in the training split are <unk> to a word-level model."
    )
    streaming: bool = HfArg(
        default=False, help="Read from the Hub while training instead of downloading first; needs --max_steps."
    )
    max_train_samples: int | None = HfArg(default=None, help="Train on so many samples, drawn once for all.")
    max_eval_samples: int | None = HfArg(
        default=None, help="Evaluate and test on so many samples each, drawn once for all."
    )
    max_bad_samples: int = HfArg(
        default=10,
        help="Skip up to so many images that are broken, too large or of more than 8 bits; with more the run ends. Each "
        "process counts its own, as does each data-loader worker.",
    )
    label_noise: float = HfArg(
        default=0.0,
        help="Give this share of the training samples a label drawn from all classes alike.",
    )
    label_noise_seed: int | None = HfArg(
        default=None, help="Seed of the label noise, so that runs of several seeds share it. Default: the run's."
    )
    copy_bits: int = HfArg(default=4, help="Bits of a word of repeat-copy.")
    copy_length: int = HfArg(default=2, help="Words of the longest sequence of repeat-copy.")
    copy_repeats: int = HfArg(default=2, help="How often a sequence of repeat-copy is repeated at most.")
    image_size: int | None = HfArg(
        default=None,
        help="Height and width the network sees, in pixels; a model's image processor is set to it. Default: that of "
        "pretrained weights; from scratch that of small images (at least 32), or else the architecture's.",
    )
    augmentation: Literal["auto", "none", "flip", "crop", "crop-flip", "timm"] = HfArg(
        default="auto",
        help="Random changes to training images. flip: half of them mirrored; crop: shifted by up to an eighth of the size; "
        "crop-flip: both; timm: timm's random resized crop, flip and colours. auto: crop-flip up to 64 pixels, timm above, "
        "flip alone for images to generate, and no flip for digits.",
    )
    crop_shift: int | None = HfArg(
        default=None, help="Largest shift of crop and crop-flip, in pixels. Default: an eighth of the size."
    )
    crop_border: Literal["black", "reflect"] = HfArg(
        default="black", help="What crop and crop-flip shift into the image: black, or its own reflection."
    )
    color_jitter: list[float] | None = HfArg(  # noqa: RUF009
        default=None,
        help="Strength of timm's changes of colour: one number for brightness, contrast and saturation, or one each and a "
        "fourth for the hue; 0 for none. Default: 0.4.",
    )
    normalization: Literal["data", "imagenet", "none"] = HfArg(
        default="data",
        help="Mean and deviation that a network from scratch takes colours with: the data's, ImageNet's, or none, which "
        "leaves them in [0, 1].",
    )
    eval_resize: int | None = HfArg(
        default=None,
        help="Pixels that the shorter side of an image gets before its centre is cut out in evaluation, for a network from "
        "scratch. Default: by the architecture.",
    )
    interpolation: Literal["bilinear", "bicubic"] | None = HfArg(
        default=None, help="How images are resized, for a network from scratch. Default: by the architecture."
    )

    def __post_init__(self) -> None:
        for name in (
            "max_train_samples", "max_eval_samples", "image_size",
            "eval_size", "eval_resize", "columns", "eval_columns", "bptt", "block_size", "min_frequency", "max_length",
            "copy_bits", "copy_length", "copy_repeats",
        ):  # fmt: skip
            value = getattr(self, name)
            least = 2 if name == "block_size" else 1  # the first token of a block is not predicted
            if value is not None and value < least:
                raise ValueError(f"--{name} must be at least {least}, not {value}.")
        if self.max_bad_samples < 0:
            raise ValueError(f"--max_bad_samples must be at least 0, not {self.max_bad_samples}.")
        if not 0.0 <= self.label_noise <= 1.0:
            raise ValueError(f"--label_noise is a share between 0 and 1, not {self.label_noise}.")
        if self.crop_shift is not None and self.crop_shift < 0:
            raise ValueError(f"--crop_shift must be at least 0, not {self.crop_shift}.")
        jitter = self.color_jitter or [0.0]
        if (
            len(jitter) not in (1, 3, 4)
            or not all(0 <= value < math.inf for value in jitter)
            or max(jitter[3:], default=0) > 0.5
        ):
            given = " ".join(map(str, jitter))
            raise ValueError(f"--color_jitter is 1, 3 or 4 numbers of at least 0, the fourth at most 0.5, not {given}.")
