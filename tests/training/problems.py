"""Tiny problems without batch statistics, and runs of them, for tests of the Trainer in processes of their own."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig

from hf_geo import GeoTrainer, GeoTrainingArguments


class Points(Dataset):
    """Classification of points in 8 dimensions; 40 of them, or an uneven number."""

    def __init__(self, size: int = 40) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(size, 8, generator=generator, dtype=torch.float64)
        self.labels = torch.randint(3, (size,), generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self.x[index], "labels": self.labels[index]}


class Sentences(Dataset):
    """Token sequences of different lengths, padded to 9: labels are -100 there, so a loss per token is no mean of means."""

    def __init__(self, size: int = 38) -> None:
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.randint(1, 23, (size, 9), generator=generator)
        self.length = torch.randint(3, 10, (size,), generator=generator)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        kept = torch.arange(9) < self.length[index]
        return {
            "input_ids": self.ids[index] * kept,
            "attention_mask": kept.long(),
            "labels": torch.where(kept, self.ids[index], -100),
        }


class Classifier(nn.Module):
    """Linear layers, a norm without batch statistics and, if asked, dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = PreTrainedConfig()  # where transformers looks before it smooths labels
        self.inner = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.outer(self.dropout(self.norm(self.inner(x)).relu()))
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return {**loss, "logits": logits}


def make_problem(kind: str, dropout: float = 0.0) -> tuple[nn.Module, Dataset]:
    """A float64 model, always the same one, and its data set."""
    torch.manual_seed(0)
    if kind == "points":
        return Classifier(dropout).double(), Aging()
    sizes = {"vocab_size": 23, "hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 16}
    config = LlamaConfig(num_hidden_layers=1, num_attention_heads=2, **sizes)
    return LlamaForCausalLM(config).double(), Sentences()


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Aging(Points):
    """Points that move with the epoch, as augmented images do."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item = super().__getitem__(index)
        return {**item, "x": item["x"] + self.epoch}


class Normalized(nn.Module):
    """A linear layer before batch normalization, so that every method with a geometry has a weight for it."""

    def __init__(self) -> None:
        super().__init__()
        self.config = PreTrainedConfig()
        torch.manual_seed(0)
        self.hidden, self.norm, self.out = nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.double()

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.out(self.norm(self.hidden(x)).relu())
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return {**loss, "logits": logits}


class Stream(IterableDataset):
    """Points one after the other, of unknown number."""

    def __init__(self, size: int = 40) -> None:
        self.points = Points(size)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        return (self.points[i] for i in range(len(self.points)))


def make_trainer(
    folder: Path, model: nn.Module | None = None, *callbacks, data=None, subspace=None, dropout=0.0, **settings
) -> GeoTrainer:
    """A short quiet run on the points, with a constant learning rate and without checkpoints unless the settings have others."""
    original, points = make_problem("points", dropout)
    defaults = {"max_steps": 4, "logging_steps": 1, "save_strategy": "no", "lr_scheduler_type": "constant"}
    return GeoTrainer(
        original if model is None else model,
        GeoTrainingArguments(output_dir=str(folder), **({"disable_tqdm": True} | defaults | settings)),
        train_dataset=points if data is None else data,
        eval_dataset=Points(),
        callbacks=list(callbacks),
        subspace=subspace,
    )


def loss_of(model: nn.Module) -> float:
    """The mean loss over all points."""
    batch = torch.utils.data.default_collate([Points()[i] for i in range(len(Points()))])
    with torch.no_grad():
        return model.eval()(**batch)["loss"].item()
