"""A finished run's folder, written by hand: real enough to push, small enough to make in every test."""

import hashlib
import json
import random
from pathlib import Path

CARD = """---
license: apache-2.0
library_name: timm
pipeline_tag: image-classification
tags:
- hf_geo
- fromage
datasets:
- uoft-cs/cifar10
metrics:
- accuracy
model-index:
- name: digits
  results:
  - task:
      type: image-classification
    dataset:
      name: digits
      type: digits
      split: test
    metrics:
    - type: accuracy
      value: 0.9722
---

# digits

What stays exactly as it is: trailing spaces   \t, a tab, an é, and no newline at the end."""

CONFIG = {"architecture": "test_resnet", "architectures": ["TimmWrapperForImageClassification"], "pretrained_cfg": {}}

STAYS_HOME = (
    *("checkpoint-10/model.safetensors", "checkpoint-10/optimizer.pt", "checkpoint-9/figures/x.png"),
    *("tmp-checkpoint-20/model.safetensors", "_staging/model.safetensors", "model.safetensors.tmp", "a.incomplete"),
    *("training_args.bin", "final/training_args.bin", ".env", ".netrc", "figures/.DS_Store", ".cache/huggingface/x"),
)


def write_run(folder: Path) -> dict[str, bytes]:
    """Fills `folder` with a finished run and returns what of it must arrive on the Hub, by name."""
    arrives = {
        "README.md": CARD.encode(),
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": random.Random(0).randbytes(300_000),
        "subspace.safetensors": random.Random(1).randbytes(200_000),
        "subspace_config.json": b'{"kind": "line"}',
        "training_args.json": b'{"optim": "fromage"}',
        "trainer_state.json": b'{"log_history": []}',
        "train_results.json": b'{"train_loss": 0.1}',
        "eval_results.json": b'{"eval_accuracy": 0.9722}',
        "figures/curve.png": b"\x89PNG\r\n\x1a\n" + random.Random(2).randbytes(1000),
        "checkpoint-notes.md": b"A file of that name is no checkpoint.",
        "empty.txt": b"",
    }
    # A token where it must not matter: nothing of this is pushed.
    secret = b"HF_TOKEN=hf_" + b"x" * 34
    for name, content in (arrives | dict.fromkeys(STAYS_HOME, secret)).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return arrives


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """SHA-256 and time of change of every file below `folder`, and the folders: equal if nothing that is kept was touched."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder",
            path.stat().st_mtime_ns if path.is_file() else 0,  # a run tries before training whether it can write there
        )
        for path in sorted(folder.rglob("*"))
    }
