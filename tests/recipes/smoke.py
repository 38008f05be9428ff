"""Runs recipes for two updates on a handful of samples, through `scripts/train.py`; prints what each left as JSON.

python tests/recipes/smoke.py FOLDER PATH ...
"""

import json
import sys
import time
from pathlib import Path

from tests.recipes.every import scaled_down
from tests.scripts import script

FEW = (
    *("--smoke", "--max_steps", "2", "--per_device_train_batch_size", "2", "--per_device_eval_batch_size", "2"),
    *("--max_train_samples", "8", "--max_eval_samples", "4", "--dataloader_num_workers", "0", "--disable_tqdm", "true"),
)

if __name__ == "__main__":
    train = script("train")
    for number, recipe in enumerate(sys.argv[2:]):
        started, folder = time.perf_counter(), Path(sys.argv[1], str(number))
        status = train(["--config", recipe, *FEW, *scaled_down(Path(recipe)), "--output_dir", folder])
        state = json.loads((folder / "trainer_state.json").read_text())
        losses = [row["loss"] for row in state["log_history"] if "loss" in row]
        card = (folder / "README.md").is_file() and (folder / "model.safetensors").is_file()
        took = round(time.perf_counter() - started, 1)
        report = {"recipe": recipe, "status": status, "steps": state["global_step"], "losses": losses, "card": card}
        print("\n" + json.dumps({**report, "seconds": took}), flush=True)
        (folder / "model.safetensors").unlink()  # up to a quarter of a gigabyte
