"""The checkpoints of a run's folder. No heavy import, for scripts that start fast."""

import re
from pathlib import Path


def list_checkpoints(run: str | Path) -> list[Path]:
    """Lists the folders called `checkpoint-STEP`, by step."""
    found = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in Path(run).glob("checkpoint-*")}
    return sorted(
        (path for path, name in found.items() if name and path.is_dir()), key=lambda path: int(found[path][1])
    )
