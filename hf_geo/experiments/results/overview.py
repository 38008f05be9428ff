"""The table of all recipes: what each reproduces, what was published and measured, what it costs, and its command."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_geo.markdown import format_table
from hf_geo.metrics import is_share

from .comparison import read_published
from .sections import find_section, has_others

COSTS = "costs.json"  # beside the papers' folders
# Floating-point operations a second; where they come from stands in `HEAD`.
CPU_RATE, GPU_RATE = 120e9, 20e12
HEAD = """# Recipes

Made by `python scripts/results.py --overview`. Each recipe is a file of settings with named variants.

- **Published** figures are of the papers or their authors' repositories (`published.json` beside the recipes says which).
- **Ours** stands where runs of the whole recipe are in the paper's RESULTS.md; "in part" links to sweeps and to runs of a smaller budget.
- **Cost** is an estimate for one run of one variant: three times the operations of a forward pass over all training samples,
  at {cpu:g} GFLOP/s for one CPU thread, which a smoke run of ResNet-20 in bfloat16 reached, and at an assumed {gpu:g} TFLOP/s for
  one data-centre GPU, on which the recipes were not run; small networks keep a GPU less busy and take longer.
- The commands name the first variant; those for several GPUs add `--config_file configs/accelerate/multi_gpu.yaml` after `accelerate launch`.
"""
PAPERS = {
    "fromage": "[Bernstein et al. 2020](https://arxiv.org/abs/2002.03432)",
    "ali-g": "[Berrada et al. 2020](https://arxiv.org/abs/1906.05661)",
    "spherical": "[Roburin et al. 2022](https://arxiv.org/abs/2006.13382)",
    "riemannian-bn": "[Cho & Lee 2017](https://arxiv.org/abs/1709.09603)",
    "subspaces": "[Wortsman et al. 2021](https://arxiv.org/abs/2102.10472)",
}


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Args:
        path: Its file below the folder of recipes.
        settings: Its values without a variant.
        variants: Names of its variants.
    """

    path: Path
    settings: Mapping[str, Any]
    variants: Sequence[str]


def describe_recipes(recipes: Sequence[Recipe], configs: Path) -> str:
    """Writes the overview in Markdown, a table for each paper.

    Args:
        recipes: In order.
        configs: Folder of the recipes, with the papers' published.json and RESULTS.md, and `COSTS`.
    """
    costs = json.loads((configs / COSTS).read_text(encoding="utf-8"))
    parts = [HEAD.format(cpu=CPU_RATE / 1e9, gpu=GPU_RATE / 1e12)]
    for folder in dict.fromkeys(recipe.path.parent.name for recipe in recipes):
        rows = [_row(recipe, configs, costs) for recipe in recipes if recipe.path.parent.name == folder]
        parts += [f"## {folder or 'to begin with'}", PAPERS.get(folder, "")]
        parts.append(format_table(list(rows[0]), [list(row.values()) for row in rows]))
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def _row(recipe: Recipe, configs: Path, costs: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    settings, stem = recipe.settings, recipe.path.stem
    length = (
        f"{settings['max_steps']:,} updates" if "max_steps" in settings else f"{settings['num_train_epochs']:g} epochs"
    )
    variant = f" --variant {recipe.variants[0]}" if recipe.variants else ""
    cpu, gpu = _hours(costs.get(str(recipe.path.with_suffix("")), {}), settings)
    return {
        "recipe": f"[{stem}]({recipe.path})",
        "what": f"{settings['model']} on {settings['dataset']}, {length}",
        "variants": ", ".join(recipe.variants) or "none",
        "published": _published(read_published((configs / recipe.path).parent, stem)),
        "ours": _ours((configs / recipe.path).parent, stem),
        "CPU": cpu,
        "GPU": gpu,
        "command": f"`accelerate launch scripts/train.py --config configs/{recipe.path}{variant}`",
    }


def _hours(cost: Mapping[str, float], settings: Mapping[str, Any]) -> tuple[str, str]:
    """The time on a CPU and on a GPU, in words."""
    if "cpu_hours" in cost:
        return _time(cost["cpu_hours"]), ""
    if not cost:
        return "", ""
    operations = 3e9 * cost["gflop"] * cost["samples"] * settings["num_train_epochs"]
    return _time(operations / CPU_RATE / 3600), _time(operations / GPU_RATE / 3600)


def _time(hours: float) -> str:
    units = ((1, "min", 60), (48, "h", 1), (math.inf, "days", 1 / 24))
    unit, factor = next((unit, factor) for limit, unit, factor in units if hours < limit)
    return f"{max(hours * factor, 1):,.0f} {unit}"


def _published(published: Mapping[str, Any]) -> str:
    if not published:
        return "not known"
    values = ", ".join(f"{variant} {row['value']:g}" for variant, row in published["values"].items())
    unit = " (%)" if is_share(published["metric"]) else ""
    return f"{published['metric'].replace('_', ' ')}{unit}: {values}"


def _ours(paper: Path, stem: str) -> str:
    """What the recipe's section of RESULTS.md has, else a link if it has its sweeps or shorter runs, else "not run"."""
    path = paper / "RESULTS.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if section := find_section(text, stem):
        rows = re.findall(r"^\| (\S[^|]*) \| ([\d.][^|]*) \|", section, re.MULTILINE)
        return ", ".join(f"{variant} {value}" for variant, value in rows)
    return f"[in part]({paper.name}/RESULTS.md)" if has_others(text, stem) else "not run"
