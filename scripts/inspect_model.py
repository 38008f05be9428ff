# /// script
# dependencies = ["hf_geo"]
# [tool.uv.sources]
# hf_geo = { path = "..", editable = true }
# ///
"""Shows which weights of a model are measured to be scale-invariant, and how an optimizer treats each parameter.

    python scripts/inspect_model.py --model resnet18
    python scripts/inspect_model.py --model runs/digits --optim sgdg --json
    python scripts/inspect_model.py --model path/to/a/gpt2/folder

The model is made from its configuration. Its trained weights do not matter here and are not loaded.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hf_geo.cli.options import OptionParser, add_trust, at_least, program_name, seed
from hf_geo.cli.output import protect_output
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.models.examples import ExampleSizes, build_example
from hf_geo.optim import Invariance, get_method, list_optimizers, measure_invariance, param_groups

PROG = program_name(__file__)
COLUMNS = ("parameter", "shape", "invariant", "why not", "group", "weight decay")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    options = parse(argv)
    with one_sentence_errors(PROG):
        get_method(options.optim)  # raises for an unknown name
        torch.manual_seed(options.seed)
        sizes = ExampleSizes(options.batch_size, options.img_size, options.length)
        trust = options.trust_remote_code
        model, inputs = build_example(options.model, options.model_args, sizes, trust_remote_code=trust)
        show_progress = not options.json
        start = time.perf_counter()
        try:
            rows = measure_invariance(model, inputs, seed=options.seed, progress=show_progress, explain=True)
        except AssertionError as error:  # timm's models check the size of images by assertions
            shape = " x ".join(map(str, next(iter(inputs.values())).shape[1:]))
            raise ValueError(f"{options.model} does not take inputs of {shape}: {error}") from error
        report = make_report(model, rows, options)
    report = {"model": options.model, "optim": options.optim, **report, "seconds": time.perf_counter() - start}
    print(json.dumps(report, indent=2) if options.json else format_report(report))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = OptionParser(prog=PROG, description=__doc__)
    add = parser.add_argument
    add(
        "--model",
        required=True,
        metavar="NAME_OR_FOLDER",
        help="timm architecture, folder, Hub id, or a model type of transformers (gpt2) in its default configuration",
    )
    add("--model_args", help="further arguments of the architecture: 'drop_path_rate=0.1,num_classes=10'")
    add("--optim", default="adamsrt", metavar="NAME", help=f"{', '.join(list_optimizers())} (default: %(default)s)")
    add("--weight_decay", type=float, help="default: 1e-4 if the method has weight decay")
    add(
        "--geometry_groups",
        default="auto",
        metavar="auto|structure|none|REGEX",
        help="which weights get the method's geometry: as measured, by module structure, none, or by name",
    )
    add(
        "--batch_size",
        type=at_least(3),
        default=4,
        help="random samples to measure with, 3 or more for the batch norms (default: %(default)s)",
    )
    add("--img_size", type=at_least(1), help="height and width of the images (default: the model's own)")
    add("--length", type=at_least(1), default=32, help="tokens of a text (default: %(default)s)")
    add("--seed", type=seed, default=0, help="seed of weights, inputs and measurement (default: %(default)s)")
    add_trust(add)
    add("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args(argv)


def make_report(model: nn.Module, rows: Sequence[Invariance], options: argparse.Namespace) -> dict[str, Any]:
    """Returns the contents of the table as plain data: `parameters` and `totals`."""
    has_decay = "weight_decay" in get_method(options.optim).arguments
    groups = param_groups(
        model,
        options.optim,
        weight_decay=1e-4 * has_decay if options.weight_decay is None else options.weight_decay,
        geometry=options.geometry_groups,
        invariant={row.name: row.channel_dims for row in rows if row.channel_dims is not None},
    )
    group_of = {id(p): group for group in groups for p in group["params"]}
    parameters = []
    for row in rows:
        p = model.get_parameter(row.name)
        group = group_of.get(id(p), {"name": "frozen"})
        parameters.append(
            {
                "name": row.name,
                "shape": list(row.shape),
                "size": p.numel(),
                "channel_dims": None if row.channel_dims is None else list(row.channel_dims),
                "reason": row.reason,
                "deviation": row.deviation,
                "group": group["name"],
                "weight_decay": group.get("weight_decay"),
            }
        )
    return {"parameters": parameters, "totals": count_totals(parameters)}


def count_totals(parameters: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Counts tensors and numbers of all parameters, of the scale-invariant ones, and of each group."""
    chosen = {"all": parameters, "scale-invariant": [p for p in parameters if p["channel_dims"] is not None]}
    for name in dict.fromkeys(p["group"] for p in parameters):
        chosen[f"group {name}"] = [p for p in parameters if p["group"] == name]
    sizes = {label: sum(p["size"] for p in some) for label, some in chosen.items()}
    return {
        label: {"tensors": len(some), "parameters": sizes[label], "percent": 100 * sizes[label] / sizes["all"]}
        for label, some in chosen.items()
    }


def format_report(report: Mapping[str, Any]) -> str:
    """Formats the report as a table with its totals below."""
    rows = [
        (
            p["name"],
            " x ".join(map(str, p["shape"])) or "scalar",
            describe_channels(p["channel_dims"]),
            p["reason"],
            p["group"],
            "" if p["weight_decay"] is None else f"{p['weight_decay']:g}",
        )
        for p in report["parameters"]
    ]
    totals = [
        f"{label}: {t['tensors']} tensors, {t['parameters']:,} parameters ({t['percent']:.1f} %)"
        for label, t in report["totals"].items()
    ]
    title = f"{report['model']} with {report['optim']}, measured in {report['seconds']:.1f} s"
    return "\n".join([title, "", format_table(rows), "", *totals])


def describe_channels(channel_dims: Sequence[int] | None) -> str:
    """Describes the groups of weights that are invariant to their scale."""
    if channel_dims is None:
        return "no"
    axes = ", ".join(map(str, channel_dims))
    return {"": "as a whole", "0": "by filter (axis 0)"}.get(axes, f"by axes {axes}")


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Formats rows under `COLUMNS`."""
    widths = [max(map(len, cells)) for cells in zip(COLUMNS, *rows, strict=True)]
    lines = [COLUMNS, tuple("-" * width for width in widths), *rows]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
