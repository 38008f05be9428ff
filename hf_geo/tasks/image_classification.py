"""Image classification: any dataset of images with labels, any model of timm's or of transformers'."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import timm
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate
from torchvision.transforms.functional import to_pil_image
from transformers import AutoImageProcessor, PreTrainedModel, TimmWrapperForImageClassification, TrainingArguments

from hf_geo.data.columns import match_classes
from hf_geo.data.config import DataArguments
from hf_geo.data.image_datasets import decode
from hf_geo.data.shifted.datasets import load_shifted
from hf_geo.data.transforms import MODES, Preparation, preparation, to_channels
from hf_geo.data.vision import load_image_data
from hf_geo.metrics import image_classification_metrics, score_samples
from hf_geo.models import ModelArguments, build_image_classifier, check_images, input_config
from hf_geo.models.sources import ModelSource, find_model

from .base import (
    OPTIONS_OF_IMAGES,
    EvaluationOptions,
    EvaluationSetup,
    RepeatableLoader,
    SampleView,
    Task,
    TrainingSetup,
    final_split,
    refuse,
)
from .classifiers import collate_as_model, loss_arguments, same_classes

EVAL_BATCH_SIZE = 128


def build(model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments) -> TrainingSetup:
    """Opens the data, builds the model that fits it, and prepares the images as the model takes them.

    Raises:
        ValueError: The dataset or the model does not exist, or they do not fit each other.
    """
    no_words = "is noise on the embeddings of words, and an image classifier has none: leave it out"
    refuse("neftune_noise_alpha", args.neftune_noise_alpha, None, no_words)
    trust = model_args.trust_remote_code
    source = find_model(model_args.model)
    if source.kind != "timm" or model_args.pretrained:
        _refuse_preparation(data_args, model_args.model)
    data = load_image_data(data_args, seed=args.seed)
    build_model = partial(
        build_image_classifier,
        model_args.model,
        num_classes=data.num_classes,
        id2label=data.id2label,
        pretrained=model_args.pretrained,
        model_args=model_args.parsed_model_args,
        img_size=data_args.image_size,
        data_config=data.data_config,
        trust_remote_code=trust,
    )
    model = build_model()
    config = input_config(model, native_size=data.native_size, image_size=data_args.image_size, trust_remote_code=trust)
    size = _image_size(model, config)
    check_images(model, model_args.model, size)
    trainer = {"compute_metrics": image_classification_metrics, "preprocess_logits_for_metrics": score_samples}
    trainer |= loss_arguments(model_args, data.num_classes, args)
    if not _is_timm(model):  # timm keeps how images are prepared in the model's configuration
        trainer["processing_class"] = config.processor
    architecture = getattr(model.config, "architecture", model.config.model_type)
    pretrained = model_args.pretrained or model_args.model.split(".")[0] != architecture
    return TrainingSetup(
        model=model,
        new_model=None if pretrained else build_model,
        datasets={split: data.dataset(split, config) for split in data.splits},
        trainer=trainer,
        settings={"remove_unused_columns": False},  # the datasets hold the model's inputs and nothing else
        dataset_name=data.name,
        dataset_id=data.hub_id,
        base_model=source.name if source.kind == "hub" else None,
        library="timm" if _is_timm(model) else "transformers",
        card_fields={
            "architecture": architecture,
            "pretrained": pretrained,
            "license": source.license,
            "classes": data.num_classes,
            "image_size": list(size),
            "image_mode": MODES[size[0]],
            "needs_hf_geo": _is_registered_here(architecture),
        },
        describe_data=lambda: data.description,
        # timm's has this backend alone, and transformers warns unless it is asked for.
        open_processor=partial(
            AutoImageProcessor.from_pretrained, backend="pil" if _is_timm(model) else None, trust_remote_code=trust
        ),
    )


def reopen(sources: Sequence[ModelSource], data_args: DataArguments, options: EvaluationOptions) -> EvaluationSetup:
    """Opens trained classifiers with the same classes, and a dataset whose labels are matched to theirs by name.

    Raises:
        ValueError: The models or the data do not exist, or do not fit each other.
    """
    data = load_image_data(data_args, seed=options.seed)
    classes = same_classes(sources)
    labels = match_classes(classes, data.label_names, sources[0].name, data.name)
    trust = options.trust_remote_code
    models = [
        build_image_classifier(
            source.name,
            num_classes=len(classes),
            id2label=dict(enumerate(classes)),
            data_config=data.data_config,
            trust_remote_code=trust,
        )
        for source in sources
    ]
    config, *others = (input_config(model, native_size=data.native_size, trust_remote_code=trust) for model in models)
    if any(other != config for other in others):
        raise ValueError("The models take images that are prepared differently, so one pass cannot serve them all.")
    _, height, width = _image_size(models[0], config)
    if data_args.image_size is not None and (height, width) != (data_args.image_size, data_args.image_size):
        raise ValueError(
            f"--image_size {data_args.image_size} is not how {sources[0].name!r} prepares images, which is at {height} x {width} "
            "pixels: leave it out."
        )
    split = final_split(data.splits)
    train = data.dataset("train", config, endless=False)

    def loader(samples: Dataset, numbers: torch.Tensor | None = labels, **order: Any) -> DataLoader:
        return DataLoader(
            samples,
            batch_size=options.batch_size or EVAL_BATCH_SIZE,
            num_workers=options.num_workers,
            collate_fn=default_collate if numbers is None else partial(collate_as_model, default_collate, numbers),
            **order,
        )

    def recalibration() -> DataLoader:
        shuffle = not isinstance(train, IterableDataset)
        generator = torch.Generator().manual_seed(options.seed) if shuffle else None
        return loader(train, shuffle=shuffle, generator=generator)

    def open_shifted(name: str, needs_classes: bool = True) -> DataLoader:
        other = load_shifted(name, data_args, seed=options.seed, needs_classes=needs_classes)
        numbers = match_classes(classes, other.label_names, sources[0].name, other.name) if needs_classes else None
        return loader(other.dataset("test", config), numbers)

    return EvaluationSetup(
        models=models,
        dataset=data.name,
        split=split,
        evaluation=loader(data.dataset(split, config)),
        recalibration=RepeatableLoader(recalibration),
        causal=False,
        processor=None if _is_timm(models[0]) else config.processor,
        validation=loader(data.dataset("eval", config)) if split != "eval" else None,
        corrupted=lambda kind, severity: loader(data.dataset(split, config, corruption=(kind, severity))),
        open_shifted=open_shifted,
        view=SampleView(
            fields=("image",),
            prepare=partial(_prepare, images := preparation(config)),
            show=lambda batch: [
                to_pil_image(image) for image in images.shown(batch["pixel_values"].float()).clamp(0, 1)
            ],
            classes=classes,
        ),
    )


def _prepare(images: Preparation, path: str) -> dict[str, torch.Tensor]:
    """A batch of the image in a file; raises `BadSampleError` where it holds none."""
    image = decode({"bytes": None, "path": path})
    return {"pixel_values": images.whole(to_channels(image, images.size[0]))[None]}


def _refuse_preparation(data_args: DataArguments, model: str) -> None:
    """Raises `ValueError` for settings of how images are prepared, which a trained network brings along."""
    for name, default in (("normalization", "data"), ("eval_resize", None), ("interpolation", None)):
        reason = f"is for a network from scratch: {model!r} keeps what it was trained with"
        refuse(name, getattr(data_args, name), default, reason)


def _is_timm(model: PreTrainedModel) -> bool:
    return isinstance(model, TimmWrapperForImageClassification)


def _image_size(model: PreTrainedModel, config: Any) -> tuple[int, int, int]:
    """Channels, height and width of the images that a model takes."""
    return tuple(config["input_size"] if _is_timm(model) else config.size)


def _is_registered_here(architecture: str) -> bool:
    """Whether timm knows an architecture only once hf_geo is imported."""
    return timm.is_model(architecture) and timm.model_entrypoint(architecture).__module__.startswith("hf_geo.")


OPTIONS = {
    *OPTIONS_OF_IMAGES, "streaming", "pretrained", "loss", "top_k", "loss_temperature",
    "normalization", "eval_resize", "interpolation",
}  # fmt: skip
IMAGE_CLASSIFICATION = Task(
    name="image-classification",
    hub_name="image-classification",
    metrics=("accuracy",),
    template="vision.md.jinja",
    architectures=("ForImageClassification",),
    auto_class="AutoModelForImageClassification",
    options=OPTIONS,
    build=build,
    reopen=reopen,
)
