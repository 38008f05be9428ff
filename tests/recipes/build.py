"""Builds model, data and optimizer of recipes, without memory or time for the weights; prints what came out as JSON.

python tests/recipes/build.py FOLDER PATH[:VARIANT] ...
"""

import functools
import json
import sys

import timm
import torch

from hf_geo import tasks
from hf_geo.cli.config import parse_command_line
from hf_geo.data.config import DataArguments
from hf_geo.models.config import ModelArguments
from hf_geo.optim import list_optimizers
from hf_geo.subspaces import Subspace
from hf_geo.training.arguments import GeoTrainingArguments, RunArguments, SubspaceArguments
from hf_geo.training.optimizers import make_optimizer
from hf_geo.training.trainer import GeoTrainer

KINDS = (ModelArguments, DataArguments, SubspaceArguments, RunArguments, GeoTrainingArguments)


def on_meta(create):
    @functools.wraps(create)
    def create_on_meta(*args, **kwargs):
        with torch.device("meta"):
            return create(*args, **kwargs)

    return create_on_meta


def kept(load):
    """One opened data set for all recipes that ask for the same."""
    opened = {}

    @functools.wraps(load)
    def load_once(args, **kwargs):
        key = f"{args} {kwargs}"
        if key not in opened:
            opened[key] = load(args, **kwargs)
        return opened[key]

    return load_once


def build(folder: str, path: str, variant: str) -> dict:
    words = ["--config", path, *(["--variant", variant] if variant else []), "--output_dir", folder]
    words += ["--max_train_samples", "64", "--max_eval_samples", "32"]
    model_args, data_args, subspace_args, run_args, args, _ = parse_command_line(KINDS, words)
    job = tasks.make_job(run_args.task, model_args, data_args, args)
    subspace = subspace_args.config
    if subspace:
        Subspace.attach(job.model, subspace, model_init=job.new_model, seed=args.seed)
    if args.optim in list_optimizers():
        geometry = "structure" if args.geometry_groups == "auto" else args.geometry_groups
        optimizer = make_optimizer(args, job.model, geometry=geometry)
    else:
        optimizer_cls, settings = GeoTrainer.get_optimizer_cls_and_kwargs(args, job.model)
        optimizer = optimizer_cls(job.model.parameters(), **settings)
    trained = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert trained == sum(p.numel() for p in job.model.parameters())
    return {
        "recipe": path,
        "variant": variant,
        "optimizer": type(optimizer).__name__,
        "groups": {g.get("name", ""): g["lr"] for g in optimizer.param_groups},
        "parameters": job.num_parameters,
        "points": round(trained / job.num_parameters, 1),
        "splits": sorted(job.datasets),
        "data": str(job.card.get("data_description", "")),
        "loss": model_args.loss,
    }


if __name__ == "__main__":
    torch.equal = lambda a, b: a is b  # what has no values is compared by what it is
    timm.create_model = on_meta(timm.create_model)
    tasks.load_image_data = kept(tasks.load_image_data)
    for named in sys.argv[2:]:
        recipe, _, chosen = named.partition(":")
        print(json.dumps(build(sys.argv[1], recipe, chosen)), flush=True)
