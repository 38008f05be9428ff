"""Shows which weights of a model are scale-invariant, as measured, and what an optimizer makes of each parameter.

    python scripts/inspect_model.py --model resnet18
    python scripts/inspect_model.py --model runs/digits --optim sgdg --json
    python scripts/inspect_model.py --model path/to/a/gpt2/folder

The model is made from its configuration: its trained weights do not matter here, and are not loaded.
"""

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from huggingface_hub.errors import StrictDataclassError
from timm.data import resolve_data_config
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
)

from hf_geo.cli.options import OptionParser, add_trust, at_least, seed
from hf_geo.cli.output import protect_output
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.models.config import parse_model_args
from hf_geo.models.sources import find_model, opening, warn_of_code
from hf_geo.optim import Invariance, get_method, list_optimizers, measure_invariance, param_groups

HEADS = {
    "ForImageClassification": AutoModelForImageClassification,
    "ForCausalLM": AutoModelForCausalLM,
    "LMHeadModel": AutoModelForCausalLM,
    "ForMaskedLM": AutoModelForMaskedLM,
    "ForSequenceClassification": AutoModelForSequenceClassification,
}
COLUMNS = ("parameter", "shape", "invariant", "why not", "group", "weight decay")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    options = parse(argv)
    with one_sentence_errors("inspect_model.py"):
        get_method(options.optim)
        model, inputs = build(options)
        start = time.perf_counter()
        try:
            rows = measure_invariance(
                model, inputs, seed=options.seed, progress=not options.json and sys.stderr.isatty(), explain=True
            )
        except AssertionError as error:  # how timm refuses images of a wrong size
            shape = " x ".join(map(str, next(iter(inputs.values())).shape[1:]))
            raise ValueError(f"{options.model} does not take inputs of {shape}: {error}") from error
        report = make_report(model, rows, options)
    report = {"model": options.model, "optim": options.optim, **report, "seconds": time.perf_counter() - start}
    print(json.dumps(report, indent=2) if options.json else as_text(report))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OptionParser(
        prog="inspect_model.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME_OR_FOLDER",
        help="timm architecture, folder, Hub id, or a model type of transformers (gpt2) in its default configuration",
    )
    parser.add_argument(
        "--model_args", help="further arguments of the architecture: 'drop_path_rate=0.1,num_classes=10'"
    )
    parser.add_argument(
        "--optim", default="adamsrt", metavar="NAME", help=f"{', '.join(list_optimizers())} (default: %(default)s)"
    )
    parser.add_argument("--weight_decay", type=float, help="default: 1e-4 if the method has weight decay")
    parser.add_argument(
        "--geometry_groups", default="auto", metavar="auto|structure|none|REGEX",
        help="which weights get the method's geometry: as measured, by module structure, none, or by name",
    )  # fmt: skip
    parser.add_argument(
        "--batch_size",
        type=at_least(3),
        default=4,
        help="random samples to measure with, 3 or more for the batch norms (default: %(default)s)",
    )
    parser.add_argument(
        "--img_size", type=at_least(1), help="height and width of the images (default: the model's own)"
    )
    parser.add_argument("--length", type=at_least(1), default=32, help="tokens of a text (default: %(default)s)")
    parser.add_argument(
        "--seed", type=seed, default=0, help="of weights, inputs and measurement (default: %(default)s)"
    )
    add_trust(parser.add_argument)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args(argv)


def build(options: argparse.Namespace) -> tuple[nn.Module, dict[str, Tensor]]:
    """The model, freshly initialized, and random inputs for it."""
    torch.manual_seed(options.seed)
    args = parse_model_args(options.model_args)
    if options.model in CONFIG_MAPPING and not timm.is_model(options.model):
        return build_transformers(AutoConfig.for_model(options.model), args, options)
    source = find_model(options.model)
    if source.architecture is None:
        if options.trust_remote_code:
            warn_of_code(source.name)
        with opening("configuration", source.name):
            config = AutoConfig.from_pretrained(source.name, trust_remote_code=options.trust_remote_code)
        return build_transformers(config, args, options)
    known = {k: source.config[k] for k in ("num_classes",) if k in source.config}
    return build_timm(source.architecture, {**known, **(source.config.get("model_args") or {}), **args}, options)


def build_timm(name: str, args: Mapping[str, Any], options: argparse.Namespace) -> tuple[nn.Module, dict[str, Tensor]]:
    args = dict(args)
    if options.img_size and timm.get_pretrained_cfg(name).fixed_input_size:
        args["img_size"] = options.img_size
    try:
        model = timm.create_model(name, **args)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(f"timm cannot build {name!r} with {args}: {error}; change --model_args.") from error
    channels, height, width = resolve_data_config(args, model=model)["input_size"]
    size = (options.img_size or height, options.img_size or width)
    return model, {"x": torch.randn(options.batch_size, args.get("in_chans", channels), *size)}


def build_transformers(
    config: PretrainedConfig, args: Mapping[str, Any], options: argparse.Namespace
) -> tuple[nn.Module, dict[str, Tensor]]:
    unknown = [key for key in args if not hasattr(config, key)]
    if unknown:
        raise ValueError(f"The configuration of {options.model!r} has no {unknown[0]!r} to be set by --model_args.")
    try:
        config.update(args)
    except StrictDataclassError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in args.items())
        raise ValueError(
            f"{options.model!r} does not take {given}: {' '.join(str(error).split())}; change --model_args."
        ) from error
    architecture = (getattr(config, "architectures", None) or [""])[0]
    text = config.get_text_config()
    usual = AutoModelForCausalLM if hasattr(text, "vocab_size") else AutoModelForImageClassification
    head = next((auto for suffix, auto in HEADS.items() if architecture.endswith(suffix)), usual)
    elsewhere = "call hf_geo.optim.measure_invariance(model, example_inputs) on a model and a batch of yours."
    try:
        model = head.from_config(config, trust_remote_code=options.trust_remote_code)
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        if args:
            raise ValueError(
                f"{options.model!r} cannot be made with --model_args {options.model_args}: {error}"
            ) from error
        raise ValueError(
            f"transformers makes no {head.__name__} of {options.model!r} ({config.model_type}): {elsewhere}"
        ) from error
    if model.main_input_name == "pixel_values":
        size = options.img_size or getattr(config, "image_size", 224)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        images = torch.randn(options.batch_size, getattr(config, "num_channels", 3), height, width)
        return model, {"pixel_values": images}
    if model.main_input_name == "input_ids" and hasattr(text, "vocab_size"):
        length = min(options.length, getattr(text, "max_position_embeddings", options.length))
        return model, {"input_ids": torch.randint(text.vocab_size, (options.batch_size, length))}
    raise ValueError(f"{type(model).__name__} takes {model.main_input_name}, which cannot be made up here: {elsewhere}")


def make_report(model: nn.Module, rows: Sequence[Invariance], options: argparse.Namespace) -> dict[str, Any]:
    """What the table shows, as plain data."""
    decays = "weight_decay" in get_method(options.optim).arguments
    decay = options.weight_decay if options.weight_decay is not None else 1e-4 * decays
    groups = param_groups(
        model,
        options.optim,
        weight_decay=decay,
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
    labels = dict.fromkeys(p["group"] for p in parameters)
    chosen = {"all": parameters, "scale-invariant": [p for p in parameters if p["channel_dims"] is not None]}
    chosen |= {f"group {label}": [p for p in parameters if p["group"] == label] for label in labels}
    weights = sum(p["size"] for p in parameters)
    totals = {
        label: {
            "tensors": len(some),
            "parameters": sum(p["size"] for p in some),
            "percent": 100 * sum(p["size"] for p in some) / weights,
        }
        for label, some in chosen.items()
    }
    return {"parameters": parameters, "totals": totals}


def as_text(report: Mapping[str, Any]) -> str:
    """The report as a table with its totals below."""
    lines = [
        (
            p["name"],
            " x ".join(map(str, p["shape"])) or "scalar",
            over(p["channel_dims"]),
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
    table = rich_table(lines) if sys.stdout.isatty() and importlib.util.find_spec("rich") else plain_table(lines)
    return "\n".join([title, "", table, "", *totals])


def over(channel_dims: Sequence[int] | None) -> str:
    if channel_dims is None:
        return "no"
    axes = ", ".join(map(str, channel_dims))
    return {"": "as a whole", "0": "by filter (axis 0)"}.get(axes, f"by axes {axes}")


def plain_table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in [COLUMNS, *lines]) for i in range(len(COLUMNS))]
    rows = [COLUMNS, tuple("-" * width for width in widths), *lines]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def rich_table(lines: Sequence[Sequence[str]]) -> str:
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS, header_style="bold")
    for line in lines:
        table.add_row(*line, style=None if line[2] == "no" else "green")
    console = Console(file=sys.stdout)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip()


if __name__ == "__main__":
    sys.exit(main())
