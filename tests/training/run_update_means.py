"""Trains models of several kinds for two updates, of 8 and of 7 samples, their batches divided in several ways; saves the weights.

run_update_means.py FILE.safetensors, with one process or two.
"""

import sys
import tempfile

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_geo import GeoTrainer, GeoTrainingArguments
from hf_geo.losses import LOSSES, ClassificationLoss
from tests.training.problems import Points, Sentences, flat, make_problem

SIZE = 15
# Processes x samples of a micro-batch x micro-batches of an update.
WAYS = {1: ("1 x 8 x 1", "1 x 4 x 2", "1 x 2 x 4"), 2: ("2 x 4 x 1", "2 x 2 x 2")}
BERT = {"vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # fmt: skip


class Labelled(Dataset):
    """Samples of another data set with labels of another kind."""

    def __init__(self, samples: Dataset, labels: torch.Tensor) -> None:
        self.samples, self.labels = samples, labels

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {**self.samples[index], "labels": self.labels[index]}


class Images(Dataset):
    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        return {"pixel_values": torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)}


def make(kind: str) -> tuple[torch.nn.Module, Dataset, dict]:
    """A float64 model without batch statistics, its data, and what else the Trainer gets."""
    generator = torch.Generator().manual_seed(2)
    classes = torch.randint(3, (SIZE,), generator=generator)
    if kind in ("points", "smoothed", "top-k"):
        more = {"compute_loss_func": ClassificationLoss(LOSSES["truncated-top-k"], k=2)} if kind == "top-k" else {}
        return make_problem("points")[0], Points(SIZE), more
    if kind == "sentences":
        return make_problem("sentences")[0], Sentences(SIZE), {}
    torch.manual_seed(0)
    if kind == "vit":
        small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        model = ViTForImageClassification(ViTConfig(image_size=4, patch_size=2, num_labels=3, **small))
        return model.double(), Labelled(Images(), classes), {}
    if kind == "token classes":
        return BertForTokenClassification(BertConfig(**BERT, num_labels=23)).double(), Sentences(SIZE), {}
    labels, problem, count = {
        "classes": (classes, "single_label_classification", 3),
        "numbers": (torch.randn(SIZE, generator=generator, dtype=torch.float64), "regression", 1),
        "several classes": (torch.rand(SIZE, 3, generator=generator).round().double(), "multi_label_classification", 3),
    }[kind]
    model = BertForSequenceClassification(BertConfig(**BERT, num_labels=count, problem_type=problem))
    return model.double(), Labelled(Sentences(SIZE), labels), {}


KINDS = ("points", "smoothed", "top-k", "sentences", "vit", "token classes", "classes", "numbers", "several classes")  # fmt: skip
OPTIMS = {"sgdmrt": "momentum=0.9", "alig": "momentum=0.9"}


def run(kind: str, optim: str, way: str) -> dict[str, torch.Tensor]:
    """The weights in the end and the loss that was logged."""
    _, batch, parts = map(int, way.split(" x "))
    model, data, more = make(kind)
    with tempfile.TemporaryDirectory() as folder:
        args = GeoTrainingArguments(
            output_dir=folder,
            optim=optim,
            optim_args=OPTIMS[optim],
            geometry_groups="none",
            learning_rate=0.1,
            lr_scheduler_type="constant",
            max_steps=2,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=parts,
            train_sampling_strategy="sequential",
            accelerator_config={"even_batches": False},
            label_smoothing_factor=0.1 if kind == "smoothed" else 0.0,
            save_strategy="no",
            logging_steps=2,
            disable_tqdm=True,
        )
        trainer = GeoTrainer(model, args, train_dataset=data, **more)
        trainer.train()
    return {"weights": flat(model), "loss": torch.tensor(trainer.state.log_history[0]["loss"])}


if __name__ == "__main__":
    state = Accelerator()
    found = {
        f"{kind}/{optim}/{way}/{what}": value
        for kind in KINDS
        for optim in OPTIMS
        for way in WAYS[state.num_processes]
        for what, value in run(kind, optim, way).items()
    }
    if state.is_main_process:
        save_file(found, sys.argv[1])
