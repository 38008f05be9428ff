"""Steps of timm's and torch's optimizers on sharded parameters and on whole ones: python -m tests.training.sharded_libraries FILE."""

import copy
import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from hf_geo.training.methods import library_method, library_names


def shardable() -> list[str]:
    """One name for each class and set of flags that change its path."""
    found = {}
    for name in library_names():
        try:
            method = library_method(name)
        except (ValueError, ImportError):
            continue
        if method.shardable:
            found.setdefault((method.cls, method.settings.get("corrected_weight_decay", False)), name)
    return list(found.values())


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    torch.manual_seed(1)
    images, labels = torch.randn(8, 3, 5, 5), torch.randint(5, (8,))
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


def main(path: str) -> None:
    dist.init_process_group("gloo")
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Flatten(), nn.Linear(63, 12), nn.ReLU(), nn.Linear(12, 5)
    start, errors = nn.Sequential(*layers), {}
    for name in shardable():
        method, whole, sharded = library_method(name), copy.deepcopy(start), copy.deepcopy(start)
        fully_shard(sharded, mesh=mesh)
        decay = {"weight_decay": 0.01} if "weight_decay" in method.arguments else {}
        for model in (whole, sharded):
            step(model, method.cls(model.parameters(), lr=method.lr or 0.01, **method.settings, **decay))
        pairs = zip(whole.parameters(), sharded.parameters(), strict=True)
        errors[name] = max(float((p - q.full_tensor()).detach().abs().max()) for p, q in pairs)
    if dist.get_rank() == 0:
        Path(path).write_text(json.dumps(errors))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
