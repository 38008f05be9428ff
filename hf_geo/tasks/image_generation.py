"""Image generation: any dataset of images, by classes where it has them, and a generative adversarial network."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModel, EvalPrediction, TrainingArguments

from hf_geo.data.config import DataArguments
from hf_geo.data.image_datasets import LatentSamples
from hf_geo.data.vision import ImageData, load_image_data
from hf_geo.evaluation.images import COLUMNS, write_grid, write_interpolation
from hf_geo.metrics.generation import ImageComparison
from hf_geo.models import ModelArguments
from hf_geo.models.config import build_from_args
from hf_geo.models.gan import ResNetGanConfig, ResNetGanForImageGeneration
from hf_geo.models.gan.features import open_features
from hf_geo.models.sources import ModelSource, find_model, opening
from hf_geo.training.adversarial import AdversarialTrainer

from .base import OPTIONS_OF_IMAGES, EvaluationOptions, EvaluationSetup, Task, TrainingSetup, final_split, refuse
from .trained import read_run_settings

RESNET_GAN = ResNetGanConfig.model_type
PUBLISHED_SAMPLES = 10_000  # images that are compared, in Fromage's protocol
EVAL_BATCH_SIZE = 250
LARGE = 64  # pixels that images larger than this are made in


def build(model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments) -> TrainingSetup:
    """Opens the images, builds a network for them, and opens the features in which its images are compared with them.

    Raises:
        ValueError: The dataset, the model or the features do not exist, or they do not fit each other.
    """
    refuse_settings(model_args, data_args, args)
    as_published = model_args.fid_protocol == "fromage"
    source = None if model_args.model == RESNET_GAN else find_model(model_args.model)
    data = load_images(data_args, args.seed, as_published=as_published)
    build_model = partial(build_gan, model_args, data, source)
    model = build_model()
    comparison = ImageComparison(open_features(model_args.fid_model), stretch=as_published)
    datasets = {
        split: latent_samples(data, split, model, args.seed, augment=as_published or split == "train")
        for split in data.splits
    }
    comparison.check({split: len(samples) for split, samples in datasets.items() if split != "train"})
    return TrainingSetup(
        model=model,
        new_model=None if source else build_model,
        datasets=datasets,
        trainer={"compute_metrics": comparison.metrics, "preprocess_logits_for_metrics": comparison.features_of},
        trainer_class=AdversarialTrainer,
        settings={"remove_unused_columns": False},  # the datasets hold the model's inputs and nothing else
        dataset_name=data.name,
        dataset_id=data.hub_id,
        base_model=source.name if source and source.kind == "hub" else None,
        library="transformers",
        card_fields={
            "architecture": model.config.model_type,
            "pretrained": source is not None,
            "license": source and source.license,
            "classes": data.num_classes,
            "image_size": [model.config.channels, model.config.image_size, model.config.image_size],
            "measured": comparison.description,
            "generator_parameters": f"{sum(p.numel() for p in model.generator.parameters()):,}",
        },
        describe_data=lambda: data.description,
        open_processor=lambda folder: None,  # the model makes images from numbers
    )


def refuse_settings(model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments) -> None:
    """Raises `ValueError` for a setting that has no meaning for images to generate."""
    endless = "reads images in an order that has no end, and latent variables belong to an image"
    for name, value, default, reason in (
        ("loss", model_args.loss, "cross-entropy", "is for image classifiers"),
        ("label_smoothing_factor", args.label_smoothing_factor, 0.0, "is for classifiers"),
        ("neftune_noise_alpha", args.neftune_noise_alpha, None, "is noise on the embeddings of words"),
        ("log_accuracy", args.log_accuracy, False, "is for classifiers"),
        ("normalization", data_args.normalization, "data", "is for classifiers"),
        ("eval_resize", data_args.eval_resize, None, "is for classifiers"),
        ("interpolation", data_args.interpolation, None, "is for classifiers"),
        ("streaming", data_args.streaming, False, endless),
    ):
        refuse(name, value, default, f"{reason}: leave it out of image generation")


def load_images(data_args: DataArguments, seed: int, *, as_published: bool = False) -> ImageData:
    """Opens the images, with classes or without, which are augmented by mirroring at most.

    Args:
        data_args: The user's options.
        seed: Of the augmentation.
        as_published: Whether to evaluate on the first 10,000 images that are trained on, as Fromage's paper did.
    """
    data = load_image_data(data_args, seed=seed, needs_classes=False)
    if data_args.augmentation == "auto":
        data.args = replace(data_args, augmentation="flip" if data.is_mirrorable else "none")
    if as_published:
        first = data.splits["train"].select(np.arange(min(PUBLISHED_SAMPLES, len(data.splits["train"]))))
        data.splits["eval"] = first
        data.origin += f" Evaluated on the first {len(first):,} of the training images, as published."
    return data


def latent_samples(
    data: ImageData, split: str, model: ResNetGanForImageGeneration, seed: int, *, augment: bool
) -> Dataset:
    """The samples of a split with values from -1 to 1."""
    size = model.config.image_size
    scaling = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "crop_pct": 1.0}
    config = {"input_size": (3, size, size), **scaling}
    return LatentSamples(data.dataset(split, config, augment=augment), model.config.latent_dim, seed)


def build_gan(model_args: ModelArguments, data: ImageData, source: ModelSource | None) -> ResNetGanForImageGeneration:
    """Builds a network for the data, or opens a trained one.

    Raises:
        ValueError: An argument that it does not have, or a trained one for other classes.
    """
    given = model_args.parsed_model_args
    if source is not None:
        model = open_gan(source, data, model_args.trust_remote_code)
        if given:
            raise ValueError(f"--model_args are for {RESNET_GAN!r}: {source.name!r} brings its own configuration.")
        return model
    known = set(ResNetGanConfig.__annotations__) - {"num_classes", "channels"}
    size = data.data_config.get("input_size", (3, LARGE, LARGE))[-1]

    def make(**given: Any) -> ResNetGanForImageGeneration:
        config = ResNetGanConfig(**{"image_size": size, "num_classes": data.num_classes, **given})
        return ResNetGanForImageGeneration(config)

    return build_from_args(RESNET_GAN, known, given, make)


def open_gan(source: ModelSource, data: ImageData, trust_remote_code: bool) -> ResNetGanForImageGeneration:
    """Opens a trained network for the data's classes.

    Raises:
        ValueError: It is damaged, of another kind, or for other classes.
    """
    if not IMAGE_GENERATION.solves(source):
        raise ValueError(f"{source.name!r} generates no images: name {RESNET_GAN}, or a trained one's folder or id.")
    with opening("generative adversarial network", source.name):
        model = AutoModel.from_pretrained(source.name, dtype=torch.float32, trust_remote_code=trust_remote_code)
    if model.config.num_classes != data.num_classes:
        raise ValueError(
            f"{source.name!r} generates images of {model.config.num_classes or 'no'} classes, and {data.name} has "
            f"{data.num_classes or 'none'}: take data with its classes."
        )
    return model


def reopen(sources: Sequence[ModelSource], data_args: DataArguments, options: EvaluationOptions) -> EvaluationSetup:
    """Opens trained networks for the same classes, and the images that theirs are compared with.

    Raises:
        ValueError: The models or the data do not exist, or do not fit each other.
    """
    features, protocol = run_comparison(sources[0], options.fid_model)
    as_published = protocol == "fromage"
    data = load_images(data_args, options.seed, as_published=as_published)
    models = []
    for source in sources:
        model = open_gan(source, data, options.trust_remote_code)
        first = models[0] if models else model
        if (model.config.image_size, model.config.latent_dim) != (first.config.image_size, first.config.latent_dim):
            raise ValueError(
                "The models generate images of different sizes or from other latent variables: evaluate each alone."
            )
        models.append(model)
    comparison, split = ImageComparison(open_features(features), stretch=as_published), final_split(data.splits)
    samples = latent_samples(data, split, models[0], options.seed, augment=as_published)
    comparison.check({split: len(samples)})
    loader = DataLoader(samples, batch_size=options.batch_size or EVAL_BATCH_SIZE, num_workers=options.num_workers)

    def measure(folder: Path | None) -> tuple[list[dict[str, Any]], list[str]]:
        rows, pictures, how = [], [], {"features": comparison.network.name, "protocol": protocol}
        for number, model in enumerate(models, start=1):
            rows.append({**measure_model(model, loader, comparison), **how})
            for name, write in (("samples", write_grid), ("interpolation", write_interpolation)) if folder else ():
                pictures.append(f"figures/{name}{f'-{number}' if len(models) > 1 else ''}.png")
                write(model, folder / pictures[-1], columns=COLUMNS, seed=options.seed)
        return rows, pictures

    return EvaluationSetup(
        models=models,
        dataset=data.name,
        split=split,
        evaluation=loader,
        recalibration=None,
        causal=False,
        processor=None,
        measure=measure,
    )


def run_comparison(source: ModelSource, fid_model: str | None) -> tuple[str | None, str]:
    """The features, those of the run unless others are asked for, and the protocol by which a run compared its images.

    Raises:
        ValueError: The run's network of features lay in a folder, of whose path its settings keep the last part.
    """
    settings = read_run_settings(source)
    features = fid_model or settings.get("fid_model")
    if fid_model is None and features and "/" not in features:
        raise ValueError(
            f"{source.name!r} was measured in the features of {features!r}, whose path it does not keep: name them with "
            "--fid_model."
        )
    return features, settings.get("fid_protocol", "standard")


@torch.no_grad()
def measure_model(
    model: ResNetGanForImageGeneration, loader: DataLoader, comparison: ImageComparison
) -> dict[str, float]:
    """Compares a model's images with real ones of the same classes, as an evaluation in training does."""
    fake, real = [], []
    for batch in loader:
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        pair = comparison.features_of((model(**batch).images, batch["pixel_values"]))
        for kept, features in zip((fake, real), pair, strict=True):
            kept.append(features.cpu())
    sets = tuple(torch.cat(features).numpy() for features in (fake, real))
    return comparison.metrics(EvalPrediction(predictions=sets, label_ids=None))


IMAGE_GENERATION = Task(
    name="unconditional-image-generation",
    hub_name="unconditional-image-generation",
    metrics=("frechet_distance", "fid", "precision", "recall"),
    template="generation.md.jinja",
    architectures=("ForImageGeneration",),
    auto_class="AutoModel",
    models=(RESNET_GAN,),
    options={*OPTIONS_OF_IMAGES, "fid_model", "fid_protocol"},
    build=build,
    reopen=reopen,
)
