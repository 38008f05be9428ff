"""Trains a model on a data set, evaluates it, and leaves a folder with its card that timm and transformers open.

    accelerate launch scripts/train.py --config configs/quickstart.yaml
    accelerate launch scripts/train.py --model resnet18 --dataset uoft-cs/cifar10 --optim fromage --num_train_epochs 30

Options come from a recipe (--config), from the command line, which wins, or keep their defaults.
"""

import dataclasses
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.trainer_utils import has_length

from hf_geo.checkpoints.compatibility import UnfitCheckpoint
from hf_geo.checkpoints.results import OutOfRoom, finish_result, save_where_there_is_room
from hf_geo.cli.config import parse_command_line
from hf_geo.cli.preflight import check_settings, check_trainer, no_empty_folder
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.data.bad_samples import DataFault, dead_workers_named
from hf_geo.data.config import DataArguments
from hf_geo.experiments.recipes import origin
from hf_geo.hub.background import BackgroundPush
from hf_geo.hub.card import write_card
from hf_geo.hub.export import export_model
from hf_geo.hub.push import check_destination, push_folder
from hf_geo.hub.pushing import PushEachSave
from hf_geo.models.config import ModelArguments
from hf_geo.optim import get_method, list_optimizers
from hf_geo.runs.figures import draw_geometry, draw_training_curves
from hf_geo.runs.folder import (
    check_output_dir,
    default_output_dir,
    hardware,
    portable_state,
    public_settings,
    remove_checkpoints,
)
from hf_geo.runs.report import RunReport, write_results
from hf_geo.subspaces import Subspace
from hf_geo.tasks import Job, make_job
from hf_geo.training.arguments import GeoTrainingArguments, RunArguments, SubspaceArguments
from hf_geo.training.nonfinite import NonFiniteTraining
from hf_geo.training.trainer import GeoTrainer

TRAINING, GEOMETRY = "figures/training.png", "figures/geometry.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    with one_sentence_errors("train.py"):
        model_args, data_args, subspace_args, run_args, args, chosen = parse_command_line(
            (ModelArguments, DataArguments, SubspaceArguments, RunArguments, GeoTrainingArguments),
            argv,
            prog="train.py",
            usage="train.py [--config FILE [--variant NAME]] [--smoke] [--OPTION VALUE ...]",
            description=__doc__,
        )
        logging.basicConfig(level=logging.INFO if args.should_log else logging.WARNING, format="%(message)s")
        # transformers asks for pinned memory on every machine, and torch tells of it at every epoch.
        warnings.filterwarnings("ignore", "'pin_memory' argument is set as true but no accelerator")
        args.output_dir = default_output_dir(args.output_dir, model_args.model, data_args.dataset, args.optim)
        checkpoint = check_output_dir(args.output_dir, overwrite=run_args.overwrite, resume=args.resume_from_checkpoint)
        if run_args.fallback_dir:
            check_output_dir(run_args.fallback_dir, overwrite=run_args.overwrite, resume=None)
        # transformers would push from inside the training loop, and keep the token in every checkpoint.
        hub_id = (args.hub_model_id or Path(args.output_dir).resolve().name) if args.push_to_hub else None
        hub = {"private": args.hub_private_repo, "token": args.hub_token}
        args.push_to_hub, args.hub_token = False, None
        if hub_id:
            check_destination(hub_id, folder=args.output_dir, **hub)
        set_seed(args.seed)
        job = make_job(run_args.task, model_args, data_args, args)
        for name, value in job.settings.items():
            setattr(args, name, value)
        subspace = subspace_args.config
        if subspace:
            subspace = Subspace.attach(job.model, subspace, model_init=job.new_model, seed=args.seed)
        check_settings(args, metrics=(job.metric, "loss"))
        with no_empty_folder(args.output_dir):
            trainer = GeoTrainer(
                job.model,
                args,
                train_dataset=job.datasets["train"],
                eval_dataset=job.datasets["eval"],
                **job.trainer,
                subspace=subspace,
            )
            check_trainer(trainer)
        if trainer.is_world_process_zero():
            finish_result(args.output_dir)
            if run_args.overwrite:
                remove_checkpoints(args.output_dir)

    pusher = BackgroundPush(hub_id, **hub) if hub_id else None
    if pusher and args.hub_strategy != "end":
        trainer.add_callback(PushEachSave(pusher, lambda folder: write_network(trainer, job, folder)))
    evaluated = [split for split in job.datasets if split != "train"]
    try:
        with dead_workers_named(job.datasets.values()):
            trained = trainer.train(resume_from_checkpoint=checkpoint).metrics
            trainer.settle()
            measured = {split: trainer.evaluate(job.datasets[split], metric_key_prefix=split) for split in evaluated}
    except (UnfitCheckpoint, NonFiniteTraining, DataFault) as error:
        with one_sentence_errors("train.py"):
            raise error
    state_dict = gather_weights(trainer)
    first = trainer.is_world_process_zero()
    settings = (model_args, data_args, subspace_args, args)
    shown = chosen.given | {"optim", "learning_rate", "per_device_train_batch_size", "seed"}
    report = make_report(trainer, job, trained, measured, public_settings(*settings, only=shown), hub_id)

    def write(folder: Path) -> None:
        write_network(trainer, job, folder, state_dict)
        if not first:
            return
        write_results(
            folder,
            train_results=trained | {"hardware": report.hardware, "num_processes": trainer.accelerator.num_processes},
            eval_results={key: value for values in measured.values() for key, value in values.items()},
            training_args=public_settings(*settings) | origin(chosen.config, chosen.variant),
            trainer_state=portable_state(trainer.state),
        )
        card = dataclasses.replace(report, figures=draw_figures(trainer, job, folder))
        name = (hub_id or Path(args.output_dir).resolve().name).rsplit("/", 1)[-1]
        write_card(folder, card, template=job.template, name=name, fields=job.card | job.look_at(folder))

    try:
        folder = save_where_there_is_room(args.output_dir, run_args.fallback_dir, write, first=first)
    except OutOfRoom as error:
        with one_sentence_errors("train.py"):
            raise error
    if not first:
        return 0
    print_summary(report, job, folder, pushed=bool(hub_id))
    if pusher:
        pusher.wait()
        kept = {"checkpoint": "last", "all_checkpoints": "all"}.get(args.hub_strategy.value, "none")
        with one_sentence_errors("train.py"):
            url = push_folder(folder, hub_id, checkpoints=kept, **hub)
        print(f"  on the Hub:  {url}")
    return 0


def gather_weights(trainer: GeoTrainer) -> dict[str, torch.Tensor]:
    """The whole weights of the plain network; shards are gathered, so every process takes part."""
    if trainer.subspace:
        return trainer.subspace.folded_state_dict()
    state_dict = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in state_dict.items()}  # if compiled


def write_network(
    trainer: GeoTrainer, job: Job, folder: Path, state_dict: dict[str, torch.Tensor] | None = None
) -> None:
    """Exports the network that `state_dict` holds, or the one that an evaluation would take now; all processes take part."""
    if state_dict is None:
        with trainer.as_evaluated():
            return write_network(trainer, job, folder, gather_weights(trainer))
    first = trainer.is_world_process_zero()
    if trainer.subspace and (first or trainer.is_fsdp_enabled):
        trainer.subspace.save(folder)
    if first:
        export_model(job.model, folder, processor=job.trainer.get("processing_class"), state_dict=state_dict)


def draw_figures(trainer: GeoTrainer, job: Job, folder: Path) -> dict[str, str]:
    """Draws the run's figures into `folder`; returns their places there, with captions."""
    log = trainer.state.log_history
    draw_training_curves(log, job.metric, folder / TRAINING, job.dataset_name)
    figures = {TRAINING: f"Loss and {job.metric} during training"}
    if draw_geometry(log, folder / GEOMETRY, job.dataset_name):
        figures[GEOMETRY] = "What the optimizer did to each layer"
    return figures


def make_report(
    trainer: GeoTrainer,
    job: Job,
    trained: dict[str, float],
    measured: dict[str, dict[str, float]],
    settings: dict[str, Any],
    hub_id: str | None,
) -> RunReport:
    """The finished run as plain data, its figures yet to be drawn."""
    results = {
        split: {name: values[f"{split}_{name}"] for name in (job.metric, "loss")} for split, values in measured.items()
    }
    optimizer = str(getattr(trainer.args.optim, "value", trainer.args.optim))
    return RunReport(
        task=job.task,
        optimizer=optimizer,
        paper=get_method(optimizer).paper if optimizer in list_optimizers() else None,
        dataset_name=job.dataset_name,
        dataset_id=job.dataset_id,
        results=results,
        samples={
            split: len(data) if has_length(data) else measured.get(split, {}).get(f"{split}_samples")
            for split, data in job.datasets.items()
        },
        settings=settings,
        figures={},
        steps=trainer.state.global_step,
        epochs=trainer.state.epoch or 0.0,
        seconds=trained["train_runtime"],
        hardware=hardware(trainer.accelerator.num_processes, trainer.args.device),
        parameters=job.num_parameters,
        subspace=trainer.subspace and trainer.subspace.config,
        hub_id=hub_id if hub_id and "/" in hub_id else None,  # a bare name is no address yet
        library=job.library,
        base_model=job.base_model,
    )


def print_summary(report: RunReport, job: Job, folder: str, *, pushed: bool) -> None:
    """Says what came out, where it is, and what can be done with it."""
    print(
        f"\n{job.metric} {report.shown(job.metric)} on {report.evaluated_on}, after {report.seconds:.0f} s of training"
    )
    opens = "timm and transformers" if job.library == "timm" else "transformers"
    print(f"  weights:     {folder}/model.safetensors with config.json: opens in {opens}")
    print(f"  model card:  {folder}/README.md, with {folder}/{TRAINING}")
    print(f"  figures:     {folder}/eval_results.json, train_results.json, trainer_state.json")
    print(f"  load it:     {job.how_to_load.format(folder=folder)}")
    if not pushed:
        print(f"  push it:     python scripts/push.py {folder} NAMESPACE/NAME")


if __name__ == "__main__":
    sys.exit(main())
