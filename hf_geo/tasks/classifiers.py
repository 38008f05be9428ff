"""What the tasks that classify share: their classes, their losses, and batches with a model's own class numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig, TrainingArguments

from hf_geo.losses import make_loss
from hf_geo.models import ModelArguments
from hf_geo.models.sources import ModelSource


def class_names(source: ModelSource) -> list[str]:
    """The names of a trained classifier's classes in order; their numbers where it has no names."""
    config = source.config
    names = config.get("label_names")
    if names is None and config.get("id2label"):
        names = [name for _, name in sorted(config["id2label"].items(), key=lambda item: int(item[0]))]
    if names:
        return list(names)
    # transformers leaves out of a config.json what is its default: two classes without names.
    is_plain = source.architecture is None and any(
        name.endswith("Classification") for name in config.get("architectures") or ()
    )
    default = PreTrainedConfig().num_labels if is_plain else 0
    return list(map(str, range(config.get("num_classes") or config.get("num_labels") or default)))


def same_classes(sources: Sequence[ModelSource]) -> list[str]:
    """The names of the classes that trained models share.

    Raises:
        ValueError: Their classes differ, or are numbered differently.
    """
    classes = [class_names(source) for source in sources]
    if any(names != classes[0] for names in classes[1:]):
        raise ValueError("The models have different classes, or number them differently: evaluate each of them alone.")
    return classes[0]


def loss_arguments(model_args: ModelArguments, num_classes: int, args: TrainingArguments) -> dict[str, Any]:
    """The Trainer's arguments for the loss; none for the cross-entropy, which the models compute.

    Raises:
        ValueError: The loss does not fit the number of classes, or label smoothing is asked of another than the cross-entropy.
    """
    if model_args.loss == "cross-entropy":
        return {}
    loss = make_loss(model_args.loss, num_classes, k=model_args.top_k, temperature=model_args.loss_temperature)
    if args.label_smoothing_factor:
        raise ValueError(
            f"--label_smoothing_factor is for the cross-entropy: leave it at 0 with --loss {model_args.loss}."
        )
    return {"compute_loss_func": loss}


def collate_as_model(collate: Callable, labels: torch.Tensor, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch in which the dataset's class numbers are replaced by the model's.

    Args:
        collate: Makes a batch of samples.
        labels: The model's number of each of the dataset's classes, from `match_classes`.
        samples: The samples.
    """
    batch = collate(samples)
    return {**batch, "labels": labels[batch["labels"]]}
