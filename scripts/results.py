"""Gathers what was measured into configs/PAPER/RESULTS.md: finished runs of a recipe beside the published figures, or a sweep.

    python scripts/results.py outputs/wikitext2 outputs/wikitext2-sgd outputs/wikitext2-adam
    python scripts/results.py outputs/sweep-sweep_cifar10

All runs in the folders, and below them, must be of one recipe and have its settings. A recipe's section, or a sweep's, takes
the place of its earlier one; what else the file says stays. Published figures are in configs/PAPER/published.json.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_geo.cli.config import parse_command_line
from hf_geo.cli.options import OptionParser
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.data.config import DataArguments
from hf_geo.experiments.gather import as_table, check_runs, find_runs, only_recipe, read_published
from hf_geo.experiments.report import FIGURE, ORIGIN, REPORT, put_section
from hf_geo.models.config import ModelArguments
from hf_geo.runs.folder import public_settings
from hf_geo.training.arguments import GeoTrainingArguments, RunArguments, SubspaceArguments

CONFIGS = Path(__file__).parents[1] / "configs"
KINDS = (ModelArguments, DataArguments, SubspaceArguments, RunArguments, GeoTrainingArguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    with one_sentence_errors("results.py"):
        parser = OptionParser("results.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("folders", nargs="+", metavar="FOLDER", help="Of runs, or of one sweep.")
        parser.add_argument("--configs", type=Path, default=CONFIGS, metavar="DIR", help="Where the recipes are.")
        options = parser.parse_args(argv)
        sweeps = [Path(folder) for folder in options.folders if (Path(folder) / REPORT).is_file()]
        if sweeps and len(options.folders) > 1:
            raise ValueError(f"{str(sweeps[0])!r} is a sweep, which makes a section of its own: name it alone.")
        written = add_sweep(sweeps[0], options.configs) if sweeps else add_runs(options.folders, options.configs)
    print("\n".join(f"wrote {path}" for path in written))
    return 0


def add_runs(folders: Sequence[str], configs: Path) -> list[Path]:
    """Writes the section of the recipe that all runs in the folders are of."""
    runs = find_runs(folders)
    recipe = only_recipe(runs)
    config = find_recipe(recipe, configs)

    def resolve(variant: str | None) -> dict:
        words = [f"--config={config}", *([f"--variant={variant}"] if variant else [])]
        return public_settings(*parse_command_line(KINDS, words, prog="results.py")[:-1])

    check_runs(runs, resolve)
    published = read_published(config.parent, recipe)
    parts = [f"## {config.stem}", f"Recipe: [{config.name}]({config.name}).", as_table(runs, published)]
    if published:
        parts.append(f"Published: {published['source']}")
    path = config.parent / "RESULTS.md"
    put_section(path, config.stem, "\n\n".join(parts))
    return [path]


def add_sweep(folder: Path, configs: Path) -> list[Path]:
    """Writes a sweep's section, with its figure and table beside it."""
    recipe = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))["recipe"]
    config = find_recipe(recipe, configs)
    path, name = config.parent / "RESULTS.md", f"sweep-{config.stem.removeprefix('sweep_')}"
    figure, table = config.parent / f"{name}.png", config.parent / f"{name}.csv"
    shutil.copyfile(folder / FIGURE, figure)
    shutil.copyfile(folder / "trials.csv", table)
    text = (folder / REPORT).read_text(encoding="utf-8").replace(f"]({FIGURE})", f"]({figure.name})")
    put_section(path, name, f"{text.rstrip()}\n\nAll that was measured: [{table.name}]({table.name}).")
    return [path, figure, table]


def find_recipe(recipe: str, configs: Path) -> Path:
    """The recipe's file.

    Raises:
        ValueError: It is not among the recipes.
    """
    path = configs / recipe
    if not path.is_file():
        raise ValueError(f"There is no recipe {recipe!r} in {str(configs)!r} (--configs).")
    return path


if __name__ == "__main__":
    sys.exit(main())
