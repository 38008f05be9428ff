"""Two small networks against each other, without batch statistics, and what an update of them is."""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf_geo import GeoTrainingArguments
from hf_geo.training.adversarial import AdversarialTrainer

SAMPLES = 6
UPDATES = 3
LOGGED = {"disable_tqdm": True, "report_to": "none", "use_cpu": True, "save_strategy": "no", "logging_steps": 1}


class Pair(PreTrainedModel):
    """A generator and a discriminator of points on a plane, of two classes."""

    config_class = PreTrainedConfig

    def __init__(self) -> None:
        super().__init__(PreTrainedConfig())
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        self.discriminator = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.double()

    def forward(
        self,
        pixel_values: Tensor | None = None,
        class_labels: Tensor | None = None,
        latents: Tensor | None = None,
    ) -> dict[str, Tensor]:
        classes = nn.functional.one_hot(class_labels, 2).double()
        images = self.generator(torch.cat([latents, classes], 1))
        fake = self.discriminator(torch.cat([images, classes], 1))
        if pixel_values is None:
            return {"loss": -fake.mean(), "images": images}
        real = self.discriminator(torch.cat([pixel_values, classes], 1))
        return {"loss": (1 + fake).relu().mean() + (1 - real).relu().mean(), "images": images}


def samples() -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    points, latents = (torch.randn(SAMPLES, 2, generator=generator).double() for _ in range(2))
    return [
        {"pixel_values": x, "class_labels": i % 2, "latents": z}
        for i, (x, z) in enumerate(zip(points, latents, strict=True))
    ]


def make_trainer(folder: Path, data: list[dict] | None = None, **settings) -> AdversarialTrainer:
    """A Trainer whose every update is on all samples, unless `settings` say otherwise."""
    settings = {
        "per_device_train_batch_size": SAMPLES,
        "max_steps": UPDATES,
        "lr_scheduler_type": "constant",
        **LOGGED,
        **settings,
    }
    subspace = settings.pop("subspace", None)
    args = GeoTrainingArguments(str(folder), remove_unused_columns=False, **settings)
    return AdversarialTrainer(Pair(), args, train_dataset=data or samples(), subspace=subspace)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


if __name__ == "__main__":
    folder, size = Path(sys.argv[1]), int(sys.argv[2])
    trainer = make_trainer(folder, per_device_train_batch_size=size, optim="adam", learning_rate=0.1)
    trainer.train()
    if trainer.is_world_process_zero():
        torch.save(flat(trainer.accelerator.unwrap_model(trainer.model)), folder / "weights.pt")
