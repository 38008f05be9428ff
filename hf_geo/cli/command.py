"""The command `hf-geo`, which runs any of the scripts. It starts at once: only the script that is asked for is imported."""

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_geo.resources import resource_folder

from .options import command_name, nearest
from .output import protect_output

USAGE = """usage: hf-geo COMMAND [--help] [--OPTION VALUE ...]

Geometry-aware optimizers and neural-network subspaces: train, evaluate, share.

    hf-geo train --config quickstart
    hf-geo push outputs/quickstart NAMESPACE/NAME

`accelerate launch -m hf_geo.scripts.COMMAND` runs a command in several processes or on several GPUs.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `hf-geo`; returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    scripts = find_scripts()
    if not words or words[0] in ("-h", "--help"):
        protect_output()
        print(f"{USAGE}\ncommands:\n" + "\n".join(f"  {name:<11}{summarize(path)}" for name, path in scripts.items()))
        return 0
    name, *rest = words
    if name not in scripts:
        near = nearest(name, list(scripts))
        hint = f"did you mean {' or '.join(near)}?" if near else "choose another."
        print(f"hf-geo: error: There is no command {name!r}: {hint} hf-geo --help lists them all.", file=sys.stderr)
        return 2
    return importlib.import_module(f"hf_geo.scripts.{scripts[name].stem}").main(rest)


def find_scripts() -> dict[str, Path]:
    """Returns the scripts that are programs, by the names of their commands."""
    paths = sorted(resource_folder("scripts").glob("*.py"))
    return {command_name(path): path for path in paths if "__main__" in path.read_text(encoding="utf-8")}


def summarize(script: Path) -> str:
    """Returns the first sentence of a script's docstring."""
    return ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))).partition("\n")[0]
