"""Tiny problems without batch statistics, and runs of them, for tests of the Trainer in processes of their own."""

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig


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
        return (
            {"logits": logits}
            if labels is None
            else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}
        )


def make_problem(kind: str, dropout: float = 0.0) -> tuple[nn.Module, Dataset]:
    """A float64 model, always the same one, and its data set."""
    torch.manual_seed(0)
    if kind == "points":
        return Classifier(dropout).double(), Aging()
    config = LlamaConfig(
        vocab_size=23,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
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
    """A classifier of points with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).double()

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.body(x)
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return {**loss, "logits": logits}


def loss_of(model: nn.Module) -> float:
    """The mean loss over all points."""
    batch = torch.utils.data.default_collate([Points()[i] for i in range(len(Points()))])
    with torch.no_grad():
        return model.eval()(**batch)["loss"].item()
