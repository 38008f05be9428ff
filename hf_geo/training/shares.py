"""How much each micro-batch counts in an update, such that the update's gradient is the mean over all its items.

Items are what a model's loss is a mean over: label tokens, labelled pixels, or samples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import find_batch_size
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.trainer_utils import unwrap_peft_model

IGNORED = -100


class ItemCounter:
    """Counts the items of a batch.

    Integer labels count one by one, except those that the loss ignores; any other batch counts by its samples.

    Args:
        model: The network, not wrapped by an engine.
        label_names: Names of the labels in a batch, as `Trainer.label_names`.
        shifted: Whether the loss predicts each label from those before it, so that the first of a row does not count.
    """

    def __init__(self, model: nn.Module, label_names: Sequence[str], shifted: bool) -> None:
        model = unwrap_peft_model(model)
        config = getattr(model, "config", None)
        # A loss that transformers does not know by name falls back to the one of causal language models, which shifts.
        by_default = getattr(model, "loss_type", "") is None
        causal = type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        self.shifted = shifted or (by_default and causal and not getattr(config, "is_encoder_decoder", False))
        self.ignored_pixel = getattr(config, "semantic_loss_ignore_index", IGNORED)
        self.names = ("shift_labels", "labels", *label_names)

    def __call__(self, batch: Any) -> Tensor | int:
        name = next((n for n in self.names if isinstance(batch, Mapping) and isinstance(batch.get(n), Tensor)), None)
        labels = batch[name] if name else None
        if labels is None or labels.ndim == 0 or labels.is_floating_point():
            return find_batch_size(batch) or 1
        if labels.ndim == 3 and self.ignored_pixel != IGNORED:  # a map of classes for each image
            return (labels != self.ignored_pixel).sum()
        if self.shifted and name == "labels":
            labels = labels[..., 1:]
        return (labels != IGNORED).sum()


def micro_batch_divisors(items: Sequence[Tensor | int], total: Tensor, processes: int, dtype: torch.dtype) -> Tensor:
    """What the mean losses of an update's micro-batches are divided by; infinite for a micro-batch without items.

    The processes' gradients are averaged afterwards, so those of micro-batches divided by these numbers add up to the
    gradient of the mean over all items.

    Args:
        items: Numbers of items of this process's micro-batches.
        total: Number of items of the update, over all processes.
        processes: Number of processes.
        dtype: Of the result.

    Returns:
        Shape (micro-batches,).
    """
    counts = torch.stack([torch.as_tensor(count, device=total.device) for count in items])
    return total.clamp(min=1).to(dtype) / (counts * processes)
