"""Trains, and is sent signals at chosen updates by itself; saves what it ended with.

run_signals.py WEIGHTS FOLDER [--resume] [--whom {self,workers,launcher,job}] [--rank R] [--signal N]... [--workers N]
"""

import argparse
import os
import signal
import subprocess
import time

from accelerate import Accelerator
from safetensors.torch import save_file
from transformers import TrainerCallback

from tests.training.problems import flat, make_trainer

SENT_AT, UPDATES = 3, 8


class Sender(TrainerCallback):
    """Sends a signal in the middle of the update that follows `SENT_AT`."""

    def __init__(self, words: argparse.Namespace) -> None:
        self.words = words

    def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
        if state.global_step != SENT_AT or args.process_index != self.words.rank:
            return
        for number in self.words.signal:
            if self.words.whom == "self":
                os.kill(os.getpid(), number)
            elif self.words.whom == "launcher":
                os.kill(os.getppid(), number)
                time.sleep(2)  # it notices, and hands the signal on
            else:
                # The data-loader workers too, and by somebody else: their parent they obey.
                subprocess.run(["kill", f"-{number.value}", "--", f"-{os.getpgrp()}"], check=False)
                time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("folder")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--whom", default="self")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--signal", type=lambda name: getattr(signal, name), action="append", default=[])
    parser.add_argument("--workers", type=int, default=0)
    words = parser.parse_args()
    if words.whom == "job":
        os.setpgrp()  # or the tests would be of the same job
    trainer = make_trainer(
        words.folder, None, Sender(words), dropout=0.3, optim="adamsrt", max_steps=UPDATES, logging_strategy="no",
        per_device_train_batch_size=16 // Accelerator().num_processes, dataloader_num_workers=words.workers,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=words.resume or None)
    if Accelerator().is_main_process:
        save_file({"weights": flat(trainer.model)}, words.weights)


if __name__ == "__main__":
    main()
