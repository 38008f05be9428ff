"""Builds model, data and optimizer of recipes, with weights that take no memory or time; prints what came out as JSON.

python tests/recipes/build.py FOLDER PATH:[VARIANT] ...
"""

import copy
import functools
import json
import sys
from pathlib import Path

import timm
import torch

from hf_geo import tasks
from hf_geo.cli.config import parse_command_line
from hf_geo.cli.run_arguments import RUN_ARGUMENTS
from hf_geo.optim import list_optimizers
from hf_geo.subspaces import Subspace
from hf_geo.tasks import image_classification
from hf_geo.training.optimizers import make_optimizer
from hf_geo.training.trainer import GeoTrainer
from tests.recipes.every import scaled_down

# Settings that neither model nor data depend on: variants that differ in nothing else share these.
OF_OPTIMIZER = {
    "optim", "optim_args", "learning_rate", "weight_decay", "max_grad_norm", "geometry_groups", "lr_scheduler_type",
    "lr_scheduler_kwargs", "milestones", "gamma", "warmup_steps", "adam_beta1", "adam_beta2", "adam_epsilon", "decay_all",
    "swa_start", "swa_lr", "swa_schedule", "swa_cycles", "num_train_epochs", "max_steps", "log_accuracy",
}  # fmt: skip
setups: dict[str, tasks.TrainingSetup] = {}


def on_meta(create):
    @functools.wraps(create)
    def create_on_meta(*args, **kwargs):
        with torch.device("meta"):
            return create(*args, **kwargs)

    return create_on_meta


def make_setup(task, model_args, data_args, args) -> tasks.TrainingSetup:
    """Builds the model and data of a recipe, or finds them among those of other variants."""
    settings = {name: value for name, value in args.to_dict().items() if name not in OF_OPTIMIZER}
    key = f"{task} {model_args} {data_args} {settings}"
    if key not in setups:
        found = tasks.find_task(task, model_args.model, data_args.dataset)
        setups[key] = tasks.build_setup(found, model_args, data_args, args)
    return setups[key]


def build(folder: str, path: str, variant: str) -> dict:
    words = ["--config", path, *(["--variant", variant] if variant else []), "--output_dir", folder]
    words += ["--max_train_samples", "64", "--max_eval_samples", "32", *scaled_down(Path(path))]
    model_args, data_args, subspace_args, run_args, args, _ = parse_command_line(RUN_ARGUMENTS, words)
    setup = make_setup(run_args.task, model_args, data_args, args)
    subspace = subspace_args.config
    model = copy.deepcopy(setup.model) if subspace else setup.model
    if subspace:
        Subspace.attach(model, subspace, model_init=setup.new_model, seed=args.seed)
    if args.optim in list_optimizers():
        geometry = "structure" if args.geometry_groups == "auto" else args.geometry_groups
        optimizer = make_optimizer(args, model, geometry=geometry)
    else:
        optimizer_cls, settings = GeoTrainer.get_optimizer_cls_and_kwargs(args, model)
        optimizer = optimizer_cls([p for p in model.parameters() if p.requires_grad], **settings)
    trained = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "recipe": path,
        "variant": variant,
        "optimizer": type(optimizer).__name__,
        "groups": {g.get("name", ""): g["lr"] for g in optimizer.param_groups},
        "parameters": setup.num_parameters,
        "points": round(trained / setup.num_parameters, 1),
        "splits": sorted(setup.datasets),
        "data": str(setup.describe_data()),
        "loss": model_args.loss,
    }


if __name__ == "__main__":
    torch.equal = lambda a, b: a is b  # tensors without values are compared by identity
    timm.create_model = on_meta(timm.create_model)
    image_classification.check_images = lambda *args, **kwargs: None  # a forward pass, which the slow tests make
    for named in sys.argv[2:]:
        recipe, _, chosen = named.partition(":")
        print(json.dumps(build(sys.argv[1], recipe, chosen)), flush=True)
