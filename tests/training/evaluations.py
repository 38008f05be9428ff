"""Evaluations of a network with batch norms at every update, and what only processes together can show."""

import json
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from hf_geo import GeoTrainingArguments
from hf_geo.training.checks import check_shared_folder
from hf_geo.training.norms import broadcast_buffers
from tests.training.problems import Classifier, Normalized, Points, Stream, make_trainer

SIZES = (8, 9, 10, 13)  # of an epoch; two processes take 4 samples each at a time
ROWS = {"ddp": {}, "own buffers": {"ddp_broadcast_buffers": False}, "ema": {"ema_decay": 0.5}}


def train(folder: Path, **settings) -> list[float]:
    every = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 3}
    rest = {"optim": "sgd", "learning_rate": 0.1, "per_device_train_batch_size": 4, **settings}
    trainer = make_trainer(folder, Normalized(), data=Points(), **every, **rest)
    trainer.train()
    return [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]


def refusals(folder: Path, rank: int) -> list[str | None]:
    """What two machines of one process each hear whose disks are, and then are not, as `save_on_each_node` says."""
    heard = []
    for disk, each in (("shared", False), (f"disk-{rank}", True), (f"disk-{rank}", False), ("shared", True)):
        args = GeoTrainingArguments(output_dir=str(folder / disk), save_on_each_node=each)
        args.distributed_state.local_process_index = 0
        try:
            check_shared_folder(args)
            heard.append(None)
        except ValueError as error:
            heard.append(str(error))
    args.distributed_state.local_process_index = rank
    return heard


def epoch(folder: Path, size: int, data: type, batch_norms: bool) -> list[tuple[int, int]]:
    """Of this process's micro-batches of one epoch, in updates of two: how many samples each has, and how many count."""
    model = Normalized() if batch_norms else Classifier().double()
    trainer = make_trainer(folder / "epoch", model, data=data(size), per_device_train_batch_size=4, max_steps=9)
    loader = trainer.callback_handler.train_dataloader = trainer.get_train_dataloader()
    iterator, found = iter(loader), []
    while batches := trainer.get_batch_samples(iterator, 2, trainer.args.device)[0]:
        for batch, divisor in zip(batches, trainer._updates.divisors, strict=True):
            found.append((len(batch["x"]), 0 if divisor.isinf() else len(batch["x"])))
    return found


def odd_buffers(rank: int) -> bool:
    """Whether buffers of unusual kinds become the first process's."""
    model = torch.nn.Module()
    kinds = [torch.int16, torch.bool, torch.bfloat16, torch.complex64, torch.float64]
    values = [torch.full((3, 2), rank, dtype=kind) for kind in kinds] + [torch.full((), rank), torch.empty(0)]
    values += [torch.full((3, 2), rank).t(), torch.full((1,), rank).expand(4)]
    for index, value in enumerate(values):
        model.register_buffer(f"b{index}", value)
    broadcast_buffers(model)
    return not any(buffer.any() for buffer in model.buffers())


def run(folder: Path) -> None:
    state = Accelerator()
    if state.num_processes == 1:
        return
    found = {name: train(folder / name, **settings) for name, settings in ROWS.items()}
    found["epochs"] = {
        f"{size} {data.__name__} {batch_norms}": gather_object([epoch(folder, size, data, batch_norms)])
        for size in SIZES
        for data in (Points, Stream)
        for batch_norms in (False, True)
    }
    found["odd buffers"] = gather_object([odd_buffers(state.process_index)])
    found["refusals"] = refusals(folder, state.process_index)
    if state.is_main_process:
        (folder / "evaluations.json").write_text(json.dumps(found))
