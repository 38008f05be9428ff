"""The losses by name, in the form that a Trainer takes."""

from typing import Any

from torch import Tensor

from .hinge import crammer_singer_loss
from .top_k import check_top_k, smooth_top_k_loss, truncated_top_k_loss


class ClassificationLoss:
    """A loss in the form of `transformers.Trainer`'s `compute_loss_func`.

    Args:
        function: From scores and labels to one value a sample.
        **settings: Further arguments of it.
    """

    def __init__(self, function: Any, **settings: Any) -> None:
        self.function, self.settings = function, settings

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        """The mean over the batch, or the sum divided by the samples of the whole update where their number is given."""
        losses = self.function(outputs["logits"], labels, **self.settings)
        return losses.mean() if num_items_in_batch is None else losses.sum() / num_items_in_batch


# By the names users choose them with; torch's cross-entropy is what a model computes by itself.
LOSSES = {
    "crammer-singer": crammer_singer_loss,
    "smooth-top-k": smooth_top_k_loss,
    "truncated-top-k": truncated_top_k_loss,
}


def make_loss(name: str, num_classes: int, *, k: int, temperature: float) -> ClassificationLoss:
    """Makes the loss of `LOSSES` that `name` names.

    Args:
        name: Its name.
        num_classes: Number of classes.
        k: Of a top-k loss.
        temperature: Of the smooth top-k loss.

    Raises:
        ValueError: A top-k loss with so few classes that the right one is always among the best k.
    """
    if name == "crammer-singer":
        return ClassificationLoss(LOSSES[name])
    check_top_k(k, num_classes)
    settings = {"temperature": temperature} if name == "smooth-top-k" else {}
    return ClassificationLoss(LOSSES[name], k=k, **settings)
