"""Two processes that reduce over gloo, forked from the test's own."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def in_two(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What `work` returns for each of two ranks."""
    torch.multiprocessing.start_processes(_run, (work, folder), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _run(rank: int, work: Callable[[int], Any], folder: Path) -> None:
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=patience)
    torch.save(work(rank), folder / f"{rank}.pt")
    dist.destroy_process_group()
