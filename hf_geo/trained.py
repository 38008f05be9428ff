"""Trained models, opened again beside the data to evaluate them on."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate
from transformers import AutoTokenizer, PreTrainedModel, TimmWrapperForImageClassification

from .data.classes import match_classes
from .data.config import DataArguments
from .data.language import LanguageData
from .data.text import load_text_data
from .data.vision import load_image_data
from .models import build_image_classifier, build_language_model, input_config
from .models.sources import ModelSource, download, find_model, opening, warn_of_code

SETTINGS = "training_args.json"
IMAGES, TEXTS = 128, 8  # of a batch


@dataclass
class EvaluationSetup:
    """Models and data that fit each other.

    Args:
        models: In evaluation mode.
        dataset: How to call the data set.
        split: The one to evaluate on: "test" where there is one.
        evaluation: Its batches.
        recalibration: Batches of training samples to take norm statistics from; None for language models.
        causal: Whether these are language models, whose logits at a token are for the next one.
        processor: What an export of the first model needs beside its weights, if anything.
    """

    models: Sequence[PreTrainedModel]
    dataset: str
    split: str
    evaluation: DataLoader
    recalibration: "Repeatable | None"
    causal: bool
    processor: Any


class Repeatable:
    """A loader that gives the same batches each time it is read."""

    def __init__(self, make: Callable[[], DataLoader]) -> None:
        self.make = make

    def __iter__(self) -> Iterator[Any]:
        return iter(self.make())

    def __len__(self) -> int:
        return len(self.make())


def find_trained(name: str) -> ModelSource:
    """Where a trained model is; raises `ValueError` if there is none, or an architecture only."""
    source = find_model(name)
    if source.kind == "timm":
        raise ValueError(
            f"{name!r} names an architecture without weights of a run: give a trained model's folder or id."
        )
    return source


def is_language_model(source: ModelSource) -> bool:
    return any("CausalLM" in kind or "LMHead" in kind for kind in source.config.get("architectures") or ())


def settings_of(source: ModelSource) -> dict[str, Any]:
    """The settings of a model's run, as far as they are known; raises `ValueError` where they cannot be read."""
    if not source.has_file(SETTINGS):
        return {}
    path = _path_of(source, SETTINGS)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} is not JSON ({error}): remove it, and name the data with --dataset."
        ) from error
    if not isinstance(settings, dict):
        raise ValueError(f"{str(path)!r} holds no settings: remove it, and name the data with --dataset.")
    return settings


def open_trained(
    sources: Sequence[ModelSource],
    args: DataArguments,
    *,
    batch_size: int | None = None,
    num_workers: int = 0,
    seed: int = 0,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> EvaluationSetup:
    """Opens models and the data to evaluate them on.

    Args:
        sources: Of one kind: image classifiers, or language models that share their vocabulary.
        args: What the data are.
        batch_size: Images or texts of a batch; of a text that is read in columns, those are.
        num_workers: Processes that prepare samples.
        seed: Fixes which training images are read first.
        device: Where the models go.
        trust_remote_code: Run Python code that the models bring along.

    Raises:
        ValueError: The models or the data do not exist or do not fit each other.
    """
    kinds = {is_language_model(source) for source in sources}
    if len(kinds) > 1:
        raise ValueError("Some of the models are language models and some are not, so they share no data.")
    opened = _language_models if kinds == {True} else _image_classifiers
    if trust_remote_code:
        for source in sources:
            warn_of_code(source.name)
    found = opened(sources, args, batch_size, num_workers, seed, trust_remote_code)
    found.models = [model.to(device).eval() for model in found.models]
    return found


def _image_classifiers(
    sources: Sequence[ModelSource],
    args: DataArguments,
    batch_size: int | None,
    num_workers: int,
    seed: int,
    trust_remote_code: bool,
) -> EvaluationSetup:
    data = load_image_data(args, seed=seed)
    classes = [class_names(source) for source in sources]
    if any(names != classes[0] for names in classes[1:]):
        raise ValueError("The models have different classes, or number them differently: evaluate each of them alone.")
    labels = match_classes(classes[0], data.label_names, sources[0].name, data.name)
    models = [
        build_image_classifier(
            source.name,
            num_classes=len(classes[0]),
            id2label=dict(enumerate(classes[0])),
            data_config=data.data_config,
            trust_remote_code=trust_remote_code,
        )
        for source in sources
    ]
    config, *others = (
        input_config(model, native_size=data.native_size, trust_remote_code=trust_remote_code) for model in models
    )
    if any(other != config for other in others):
        raise ValueError("The models take images that are prepared differently, so one pass cannot serve them all.")
    by_timm = isinstance(models[0], TimmWrapperForImageClassification)
    height, width = (config["input_size"] if by_timm else config.size)[1:]
    if args.image_size not in (None, height) or args.image_size not in (None, width):
        raise ValueError(
            f"--image_size {args.image_size} is not how {sources[0].name!r} prepares images, which is at {height} x {width} "
            "pixels: leave it out."
        )
    split = _last(data.splits)
    train = data.dataset("train", config, augment=False)
    shuffled = not isinstance(train, IterableDataset)
    settings = {"batch_size": batch_size or IMAGES, "num_workers": num_workers}

    def recalibration() -> DataLoader:
        order = torch.Generator().manual_seed(seed) if shuffled else None
        return DataLoader(train, shuffle=shuffled, generator=order, **settings)

    return EvaluationSetup(
        models,
        data.name,
        split,
        DataLoader(data.dataset(split, config), collate_fn=partial(_collate_with_labels, labels), **settings),
        Repeatable(recalibration),
        causal=False,
        processor=None if by_timm else config.processor,
    )


def class_names(source: ModelSource) -> list[str]:
    """The names of a trained classifier's classes, in their order; their numbers where it has none."""
    config = source.config
    names = config.get("label_names")
    if names is None and config.get("id2label"):
        names = [name for _, name in sorted(config["id2label"].items(), key=lambda item: int(item[0]))]
    return list(names or map(str, range(config.get("num_classes") or config.get("num_labels") or 0)))


def _collate_with_labels(labels: torch.Tensor, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    batch = default_collate(samples)
    return {**batch, "labels": labels[batch["labels"]]}


def _language_models(
    sources: Sequence[ModelSource],
    args: DataArguments,
    batch_size: int | None,
    num_workers: int,
    seed: int,
    trust_remote_code: bool,
) -> EvaluationSetup:
    text = load_text_data(args)
    tokenizers = []
    for source in sources:
        with opening("tokenizer", source.name):
            tokenizers.append(AutoTokenizer.from_pretrained(source.name, trust_remote_code=trust_remote_code))
    if any(tokenizer.get_vocab() != tokenizers[0].get_vocab() for tokenizer in tokenizers):
        raise ValueError("The models have different vocabularies, so their predictions cannot be compared.")
    models = [
        build_language_model(source.name, tokenizer, trust_remote_code=trust_remote_code)
        for source, tokenizer in zip(sources, tokenizers, strict=True)
    ]
    layout = LanguageData(
        text,
        tokenizers[0],
        args,
        batch_size=batch_size or TEXTS,
        longest=getattr(models[0].config, "max_position_embeddings", None),
    )
    split = _last(text.splits)
    loader = DataLoader(
        layout.evaluation_set(split),
        batch_size=layout.eval_batch_size,
        num_workers=num_workers,
        collate_fn=layout.collate,
    )
    return EvaluationSetup(models, text.name, split, loader, None, causal=True, processor=tokenizers[0])


def _last(splits: Mapping[str, Any]) -> str:
    return "test" if "test" in splits else "eval"


def _path_of(source: ModelSource, filename: str) -> Path:
    return Path(source.name, filename) if source.kind == "folder" else Path(download(source.name, filename))
