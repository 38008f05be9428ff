"""Where the files beside the code are: scripts, recipes, card templates. No heavy import."""

import os
import shlex
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_IS_CLONE = (_PACKAGE.parent / "pyproject.toml").is_file()


def resource_folder(name: str) -> Path:
    """Returns the folder `scripts`, `configs` or `model_card_templates`: of the clone, or of the installed package."""
    return (_PACKAGE.parent if _IS_CLONE else _PACKAGE) / name


def command_line(command: str, *arguments: str | Path) -> str:
    """Returns what a user types to run a command: `hf-geo push FOLDER`.

    `uv run scripts/train.py` makes an environment that no shell has on its path, so there it is `uv run scripts/push.py FOLDER`.
    """
    program = ["hf-geo", command]
    if _IS_CLONE and "UV" in os.environ:  # which uv sets for what it runs
        program = ["uv", "run", os.path.relpath(resource_folder("scripts") / f"{command}.py")]
    return shlex.join([*program, *map(str, arguments)])
