"""Trains a network with batch norms in two processes, evaluating and saving at every update: what was measured, as JSON.

run_evaluated.py FOLDER
"""

import json
import os
import sys
from pathlib import Path

from accelerate import Accelerator

from hf_geo import GeoTrainer, GeoTrainingArguments
from hf_geo.training.checks import check_shared_folder
from tests.training.problems import Normalized, Points

ROWS = {"ddp": {}, "own buffers": {"ddp_broadcast_buffers": False}, "ema": {"ema_decay": 0.5}}


def train(folder: Path, **settings) -> list[float]:
    args = GeoTrainingArguments(
        output_dir=str(folder),
        optim="sgd",
        learning_rate=0.1,
        max_steps=3,
        per_device_train_batch_size=4,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        disable_tqdm=True,
        **settings,
    )
    trainer = GeoTrainer(Normalized(), args, train_dataset=Points(), eval_dataset=Points())
    trainer.train()
    return [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]


def refusal_without_shared_disk(folder: Path, rank: int) -> str:
    """What two machines of one process each are told that write to folders of their own."""
    os.environ["LOCAL_WORLD_SIZE"] = "1"
    args = GeoTrainingArguments(output_dir=str(folder / f"disk-{rank}"))
    check_shared_folder(GeoTrainingArguments(output_dir=str(folder / "shared")))
    try:
        check_shared_folder(args)
    except ValueError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    folder, state = Path(sys.argv[1]), Accelerator()
    found = {name: train(folder / name, **settings) for name, settings in ROWS.items()}
    found["refusal"] = refusal_without_shared_disk(folder, state.process_index)
    if state.is_main_process:
        (folder / "found.json").write_text(json.dumps(found))
