# /// script
# dependencies = ["hf_geo"]
# [tool.uv.sources]
# hf_geo = { path = "..", editable = true }
# ///
"""Gathers results into configs/PAPER/RESULTS.md: finished runs of a recipe beside the published figures, or a sweep.

    python scripts/results.py outputs/wikitext2 outputs/wikitext2-sgd outputs/wikitext2-adam
    python scripts/results.py outputs/sweep-sweep_cifar10
    python scripts/results.py --overview
    python scripts/results.py --walks outputs/line-0 outputs/line-1 outputs/curve-0 outputs/standard-0 outputs/ensemble

All runs in the folders, and below them, must be of one recipe and have its settings. The section of a recipe or a sweep
replaces its earlier one; the rest of the file stays. With --walks, what scripts/evaluate.py has left in the folders is drawn in
one figure, whatever the runs' budgets were: subspaces beside plain networks and ensembles, over seeds. Published figures are read from configs/PAPER/published.json.
"""

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import hf_geo
from hf_geo.cli.options import OptionParser, program_name
from hf_geo.cli.output import protect_output
from hf_geo.cli.recipes import find_recipes, list_variants, meaning_of, read_recipe
from hf_geo.cli.run_arguments import resolve_settings
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.experiments.report import FIGURE, ORIGIN, REPORT
from hf_geo.experiments.results.comparison import compare_with_published, read_published
from hf_geo.experiments.results.overview import Recipe, describe_recipes
from hf_geo.experiments.results.sections import name_sweep
from hf_geo.experiments.results.walks import draw_evaluations, read_evaluations, tabulate_evaluations
from hf_geo.experiments.runs import check_runs, common_recipe, find_runs
from hf_geo.markdown import replace_section
from hf_geo.resources import resource_folder

PROG = program_name(__file__)
CONFIGS = resource_folder("configs")
HEAD = "# Results\n\nMeasured with this package, each with its budget. What the papers published stands beside it where it is known.\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    with one_sentence_errors(PROG):
        parser = OptionParser(PROG, description=__doc__)
        parser.add_argument("folders", nargs="*", metavar="FOLDER", help="Folders of runs, or of one sweep.")
        parser.add_argument("--configs", type=Path, metavar="DIR", help="Folder of the recipes (default: the clone's).")
        add = parser.add_argument
        add("--walks", action="store_true", help="Draw the evaluations in the folders in one figure.")
        add("--overview", action="store_true", help="Write configs/README.md, the table of all recipes.")
        options = parser.parse_args(argv)
        if bool(options.folders) == options.overview or (options.overview and options.walks):
            parser.error("name the folders of runs, or give --overview alone")
        sweeps = [Path(folder) for folder in options.folders if (Path(folder) / REPORT).is_file()]
        if sweeps and len(options.folders) > 1:
            raise ValueError(f"{str(sweeps[0])!r} is a sweep, which makes a section of its own: name it alone.")
        if options.configs is None and CONFIGS.is_relative_to(Path(hf_geo.__file__).parent):
            raise ValueError(
                "Results are written beside the recipes, and those of an installed package are not yours: copy them, "
                f"`cp -r {shlex.quote(str(CONFIGS))} configs`, and name the copy with --configs."
            )
        configs = options.configs or CONFIGS
        if options.overview:
            written = [write_overview(configs)]
        elif options.walks:
            written = add_walks(options.folders, configs)
        elif sweeps:
            written = add_sweep(sweeps[0], configs)
        else:
            written = add_runs(options.folders, configs)
    print("\n".join(f"wrote {path}" for path in written))
    return 0


def write_overview(configs: Path) -> Path:
    """Writes the table of all recipes; returns its file."""
    recipes = [
        Recipe(path.relative_to(configs), meaning_of(read_recipe(path)), list_variants(path))
        for path in find_recipes(configs)
    ]
    path = configs / "README.md"
    path.write_text(describe_recipes(recipes, configs), encoding="utf-8")
    return path


def add_runs(folders: Sequence[str], configs: Path) -> list[Path]:
    """Writes the section of the recipe that all runs in the folders were made from; returns the files written."""
    runs = find_runs(folders)
    config = find_recipe(common_recipe(runs), configs)

    def resolve(variant: str | None) -> dict:
        return resolve_settings([f"--config={config}", *([f"--variant={variant}"] if variant else [])], prog=PROG)

    check_runs(runs, resolve)
    published = read_published(config.parent, config.stem)
    table = compare_with_published(runs, published)
    parts = [f"## {config.stem}", f"Recipe: [{config.name}]({config.name}).", table]
    if published:
        parts.append(f"Published: {published['source']}")
    return [write_section(config.parent, config.stem, "\n\n".join(parts))]


def add_sweep(folder: Path, configs: Path) -> list[Path]:
    """Writes a sweep's section, with its figure and table beside it; returns the files written."""
    origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    config = find_recipe(origin["recipe"], configs)
    name = name_sweep(config.stem, origin)
    figure, table = config.parent / f"{name}.png", config.parent / f"{name}.csv"
    shutil.copyfile(folder / FIGURE, figure)
    shutil.copyfile(folder / "trials.csv", table)
    text = (folder / REPORT).read_text(encoding="utf-8").replace(f"]({FIGURE})", f"]({figure.name})")
    section = f"{text.rstrip()}\n\nAll that was measured: [{table.name}]({table.name})."
    return [write_section(config.parent, name, section), figure, table]


def add_walks(folders: Sequence[str], configs: Path) -> list[Path]:
    """Writes the section of the evaluations in the folders, with their figure beside it; returns the files written."""
    evaluations, runs = read_evaluations(folders), find_runs(folders, in_each=False)
    config = find_recipe(common_recipe(runs), configs)
    name = f"walks-{config.stem}"
    figure = config.parent / f"{name}.png"
    draw_evaluations(evaluations, figure, f"{config.stem}, on {evaluations[0].measured_on}")
    epochs = sorted({round(run.metrics["epoch"], 3) for run in runs})  # which --max_steps or a stop may have cut short
    hardware = sorted({run.metrics["hardware"] for run in runs})
    minutes = sum(run.metrics["train_runtime"] for run in runs) / 60
    text = (
        f"{len(runs)} runs of [{config.name}]({config.name}), each of {' or '.join(f'{n:g}' for n in epochs)} epochs. "
        f"{minutes:.0f} minutes of training on {' and '.join(hardware)}. Evaluated on {evaluations[0].measured_on}."
    )
    parts = [f"## {config.stem}: along the subspaces", f"![Along the subspaces]({figure.name})", text]
    return [write_section(config.parent, name, "\n\n".join([*parts, tabulate_evaluations(evaluations)])), figure]


def write_section(paper: Path, name: str, section: str) -> Path:
    """Writes a section of the paper's RESULTS.md, and returns that file."""
    path = paper / "RESULTS.md"
    text = path.read_text(encoding="utf-8") if path.exists() else HEAD
    path.write_text(replace_section(text, name, section), encoding="utf-8")
    return path


def find_recipe(recipe: str, configs: Path) -> Path:
    """Returns the recipe's file.

    Raises:
        ValueError: It is not among the recipes.
    """
    path = configs / recipe
    if not path.is_file():
        raise ValueError(f"There is no recipe {recipe!r} in {str(configs)!r} (--configs).")
    return path


if __name__ == "__main__":
    sys.exit(main())
