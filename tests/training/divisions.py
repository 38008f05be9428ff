"""Trainings of many kinds of models and losses, with their updates divided over micro-batches and processes.

Each update has 8 samples, the last of an epoch 3, whose labels differ in number; what is expected comes from a plain loop over
whole updates with the model's own mean loss.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import IterableDataset
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from hf_geo import GeoTrainer, GeoTrainingArguments
from hf_geo.losses import ClassificationLoss, truncated_top_k_loss
from hf_geo.optim import create_optimizer
from tests.training.problems import flat

SAMPLES, UPDATE, UPDATES, EPOCHS = 19, 8, 3, 2
DIVISIONS = {1: (2, 4), 2: (1, 4)}  # processes: (batch, micro-batches)
SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
TEXT = {"vocab_size": 11, "max_position_embeddings": 8, **SMALL}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def _draw(make: Callable[[], Tensor]) -> Tensor:
    torch.manual_seed(1)
    return make()


IDS = _draw(lambda: torch.randint(1, 11, (SAMPLES, 6)))
KEPT = _draw(
    lambda: torch.arange(6) < torch.randint(1, 7, (SAMPLES, 1))
)  # also rows of which a shifted loss keeps none
CLASSES = _draw(lambda: torch.randint(0, 3, (SAMPLES,)))
TOKENS = torch.where(KEPT, IDS, -100)
IMAGES = _draw(lambda: torch.randn(SAMPLES, 3, 4, 4, dtype=torch.float64))
PIXELS = _draw(
    lambda: torch.where(torch.rand(SAMPLES, 4, 4) < torch.rand(SAMPLES, 1, 1), torch.randint(3, (SAMPLES, 4, 4)), 255)
)


class Plain(nn.Module):
    """A classifier of images; what it does with a number of items is the subclasses' matter."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PreTrainedConfig()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, pixel_values, labels=None):
        logits = self.body(pixel_values)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Dividing(Plain):
    """Takes the number of items and divides by it."""

    accepts_loss_kwargs = True

    def forward(self, pixel_values, labels=None, num_items_in_batch=None):
        logits = self.body(pixel_values)
        if labels is None:
            return {"logits": logits}
        loss = F.cross_entropy(logits, labels, reduction="sum" if num_items_in_batch is not None else "mean")
        return {"loss": loss if num_items_in_batch is None else loss / num_items_in_batch, "logits": logits}


class Unlabelled(Plain):
    """Learns without anything called labels."""

    def forward(self, pixel_values):
        return {"loss": self.body(pixel_values).square().mean()}


class Segmenting(nn.Module):
    """One class a pixel, except those marked 255."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PreTrainedConfig(semantic_loss_ignore_index=255)
        self.body = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, pixel_values, labels):
        logits = self.body(pixel_values)
        return {"loss": F.cross_entropy(logits, labels, ignore_index=255), "logits": logits}


class OwnLoss(GeoTrainer):
    """A user's Trainer with a loss that knows nothing of updates."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        return F.multi_margin_loss(model(**inputs)["logits"], labels)


def summed(outputs, labels, num_items_in_batch):
    return F.cross_entropy(outputs["logits"], labels, reduction="sum") / num_items_in_batch


def ignoring_the_number(outputs, labels, num_items_in_batch=None):
    return F.cross_entropy(outputs["logits"], labels)


def _bert(cls: type, **settings: Any) -> Callable[[], nn.Module]:
    return lambda: cls(BertConfig(**TEXT, **NO_DROPOUT, **settings))


def _by_logits(loss: Callable) -> Callable:
    return lambda model, batch: loss(
        model(**{k: v for k, v in batch.items() if k != "labels"})["logits"], batch["labels"]
    )


@dataclass(frozen=True)
class Row:
    """A way to train: the model, what its batches hold, and the mean loss of a whole update if it is not the model's own."""

    model: Callable[[], nn.Module]
    data: dict[str, Tensor]
    loss: Callable | None = None
    func: Callable | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    trainer: type[GeoTrainer] = GeoTrainer
    stream: bool = False


class Stream(IterableDataset):
    """Samples of unknown number."""

    def __init__(self, samples: list[dict[str, Tensor]]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(self.samples)


VISION = {"pixel_values": IMAGES, "labels": CLASSES}
WORDS = {"input_ids": IDS, "labels": TOKENS}
NLL = _by_logits(F.cross_entropy)
SMOOTHED = _by_logits(lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1))
TOP_2 = _by_logits(lambda x, y: truncated_top_k_loss(x, y, 2).mean())
GPT2 = GPT2Config(
    vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
)
T5 = T5Config(
    vocab_size=11, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, dropout_rate=0.0, decoder_start_token_id=0
)
SPANS = {"input_ids": IDS, "start_positions": CLASSES, "end_positions": CLASSES + 1}
KINDS = {
    "plain": Row(Plain, VISION),
    "stream": Row(Plain, VISION, stream=True),
    "divides by the number": Row(Dividing, VISION),
    "no labels": Row(Unlabelled, {"pixel_values": IMAGES}),
    "pixels": Row(Segmenting, {"pixel_values": IMAGES, "labels": PIXELS}),
    "smoothed": Row(Plain, VISION, SMOOTHED, settings=(("label_smoothing_factor", 0.1),)),
    "our loss": Row(Plain, VISION, TOP_2, ClassificationLoss(truncated_top_k_loss, k=2)),
    "loss function that divides": Row(Plain, VISION, NLL, summed),
    "loss function of means": Row(Plain, VISION, NLL, ignoring_the_number),
    "loss function for a model that divides": Row(Dividing, VISION, NLL, summed),
    "own compute_loss": Row(Plain, VISION, _by_logits(F.multi_margin_loss), trainer=OwnLoss),
    "BERT classes": Row(_bert(BertForSequenceClassification, num_labels=3), {"input_ids": IDS, "labels": CLASSES}),
    "BERT regression": Row(_bert(BertForSequenceClassification, num_labels=1), {"input_ids": IDS, "labels": CLASSES.double()}),
    "BERT tokens": Row(_bert(BertForTokenClassification, num_labels=11), WORDS),
    "BERT answers": Row(_bert(BertForQuestionAnswering), SPANS),
    "GPT-2": Row(lambda: GPT2LMHeadModel(GPT2), WORDS),
    "T5": Row(lambda: T5ForConditionalGeneration(T5), WORDS),
}  # fmt: skip
EVALUATED = ("plain", "BERT classes", "BERT regression")  # whose means over equal batches are those over all
ROWS = [*((kind, "alig") for kind in KINDS), ("plain", "sgdmrt"), ("GPT-2", "sgd")]


def make_model(kind: str) -> nn.Module:
    set_seed(0)
    return KINDS[kind].model().double()


def samples(kind: str) -> list[dict[str, Tensor]]:
    data = KINDS[kind].data
    return [{name: values[i] for name, values in data.items()} for i in range(SAMPLES)]


def by_trainer(kind: str, name: str, batch: int, accumulation: int) -> tuple[Tensor, Tensor]:
    row = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        args = GeoTrainingArguments(
            output_dir=folder, optim=name, learning_rate=0.05, max_grad_norm=0.0, lr_scheduler_type="constant",
            geometry_groups="structure", max_steps=EPOCHS * UPDATES, per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation, train_sampling_strategy="sequential", save_strategy="no",
            logging_steps=1, disable_tqdm=True, report_to=[], **dict(row.settings),
        )  # fmt: skip
        data = Stream(samples(kind)) if row.stream else samples(kind)
        trainer = row.trainer(make_model(kind), args, train_dataset=data, compute_loss_func=row.func)
        trainer.train()
    return flat(trainer.model), torch.tensor([log["loss"] for log in trainer.state.log_history if "loss" in log])


def evaluated(kind: str, processes: int) -> float:
    """The loss that an evaluation reports, in batches of 8 samples in all."""
    with tempfile.TemporaryDirectory() as folder:
        args = GeoTrainingArguments(output_dir=folder, per_device_eval_batch_size=8 // processes, disable_tqdm=True)
        return GeoTrainer(make_model(kind), args, eval_dataset=samples(kind)[:16]).evaluate()["eval_loss"]


def by_hand(kind: str, name: str) -> tuple[Tensor, Tensor]:
    """Whole updates, each one batch."""
    row, model = KINDS[kind], make_model(kind).train()
    is_sgd = name == "sgd"
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05) if is_sgd else create_optimizer(name, model, lr=0.05)
    losses = []
    for _ in range(EPOCHS):
        for start in range(0, SAMPLES, UPDATE):
            batch = {key: values[start : start + UPDATE] for key, values in row.data.items()}
            loss = row.loss(model, batch) if row.loss else model(**batch)["loss"]
            loss.backward()
            optimizer.step() if is_sgd else optimizer.step(lambda: loss)  # noqa: B023
            optimizer.zero_grad()
            losses.append(loss.detach())
    return flat(model), torch.stack(losses)


def run(folder: Path) -> None:
    processes, found = Accelerator().num_processes, {}
    for kind, name in ROWS:
        found[f"{kind}/{name}"], found[f"{kind}/{name}/losses"] = by_trainer(kind, name, *DIVISIONS[processes])
    for kind in EVALUATED:
        found[f"{kind}/evaluated"] = torch.tensor(evaluated(kind, processes))
    if Accelerator().is_main_process:
        save_file(found, folder / "divisions.safetensors")
