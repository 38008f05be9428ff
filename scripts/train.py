"""Trains a model on a data set, evaluates it, and leaves a folder with its card that timm and transformers open.

    accelerate launch scripts/train.py --config configs/quickstart.yaml
    accelerate launch scripts/train.py --model resnet18 --dataset uoft-cs/cifar10 --optim fromage --num_train_epochs 30

Options come from a recipe (--config), from the command line, which wins, or keep their defaults.
"""

import logging
import shlex
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.trainer_utils import has_length

from hf_geo.checkpoints.compatibility import IncompatibleCheckpointError
from hf_geo.checkpoints.disk import in_words
from hf_geo.checkpoints.placing import PARTIAL, place_result
from hf_geo.checkpoints.results import OutOfSpaceError, save_where_there_is_room
from hf_geo.cli.config import parse_command_line
from hf_geo.cli.output import protect_output
from hf_geo.cli.preflight import check_export, check_settings, check_trainer, no_empty_folder
from hf_geo.cli.run_arguments import RUN_ARGUMENTS
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.data.bad_samples import DataError, dead_workers_named
from hf_geo.experiments.recipes import origin
from hf_geo.hub.background import BackgroundPush
from hf_geo.hub.card import installed_versions
from hf_geo.hub.describe import describe
from hf_geo.hub.export import export_model
from hf_geo.hub.push import check_destination, push_folder
from hf_geo.hub.pushing import PushEachSave
from hf_geo.optim import get_method, list_optimizers
from hf_geo.runs.folder import (
    check_output_dir,
    default_output_dir,
    hardware,
    portable_state,
    public_settings,
    remove_checkpoints,
)
from hf_geo.runs.report import RunReport, write_measured, write_results
from hf_geo.subspaces import Subspace
from hf_geo.tasks import Task, TrainingSetup, build_setup, find_task
from hf_geo.training.final import finalize, gather_weights
from hf_geo.training.nonfinite import NonFiniteTrainingError
from hf_geo.training.trainer import GeoTrainer


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    with one_sentence_errors("train.py"):
        model_args, data_args, subspace_args, run_args, args, chosen = parse_command_line(
            RUN_ARGUMENTS,
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
        task = find_task(run_args.task, model_args.model, data_args.dataset)
        setup = build_setup(task, model_args, data_args, args)
        for name, value in setup.settings.items():
            setattr(args, name, value)
        subspace = subspace_args.config
        if subspace:
            subspace = Subspace.attach(setup.model, subspace, model_init=setup.new_model, seed=args.seed)
        check_settings(args, metrics=(task.metric, "loss"))
        with no_empty_folder(args.output_dir):
            trainer = GeoTrainer(
                setup.model,
                args,
                train_dataset=setup.datasets["train"],
                eval_dataset=setup.datasets["eval"],
                **setup.trainer,
                subspace=subspace,
            )
            check_trainer(trainer)
            first = trainer.is_world_process_zero()
            folders = (args.output_dir, run_args.fallback_dir)
            check_export(lambda folder: export_untrained(trainer, setup, folder), folders, first=first)
        if first:
            place_result(args.output_dir)
            if run_args.overwrite:
                remove_checkpoints(args.output_dir)

    pusher = BackgroundPush(hub_id, **hub) if hub_id else None
    if pusher and args.hub_strategy != "end":
        trainer.add_callback(PushEachSave(pusher, lambda folder: write_network(trainer, setup, folder)))
    try:
        with dead_workers_named(setup.datasets.values()):
            trained = trainer.train(resume_from_checkpoint=checkpoint).metrics
    except (IncompatibleCheckpointError, NonFiniteTrainingError, DataError) as error:
        with one_sentence_errors("train.py"):
            raise error

    # The network is written before anything else is tried: what fails from here on costs no training.
    problem = finalize(trainer)
    settings = (model_args, data_args, subspace_args, args)
    processes = trainer.accelerator.num_processes
    with one_sentence_errors("train.py"):
        folder = save_network(
            trainer,
            setup,
            run_args.fallback_dir,
            train_results=trained | {"hardware": hardware(processes, args.device), "num_processes": processes},
            training_args=public_settings(*settings) | origin(chosen.config, chosen.variant),
            trainer_state=portable_state(trainer.state),
        )
    measured, problem = ({}, problem) if problem else measure(trainer, setup)
    shown = chosen.given | {"optim", "learning_rate", "per_device_train_batch_size", "seed"}
    report = make_report(trainer, task, setup, trained, measured, public_settings(*settings, only=shown), hub_id)
    with one_sentence_errors("train.py"):
        if first:
            write_measured(folder, report, measured, portable_state(trainer.state))
            described = describe(folder, trust_remote_code=model_args.trust_remote_code)
        if problem:
            command = shlex.join(["python", "scripts/evaluate.py", "--model", folder])
            raise RuntimeError(
                f"The network is trained and complete in {folder!r}, but it could not be evaluated ({in_words(problem)}): "
                f"`{command}` does that again."
            ) from problem
    if not first:
        return 0
    print(f"\n{report.summary(folder, setup.how_to_load, described.made)}")
    if not hub_id:
        print(f"  push it:     {shlex.join(['python', 'scripts/push.py', folder])} NAMESPACE/NAME")
    if pusher:
        pusher.wait()
        kept = {"checkpoint": "last", "all_checkpoints": "all"}.get(args.hub_strategy.value, "none")
        with one_sentence_errors("train.py"):
            url = push_folder(folder, hub_id, checkpoints=kept, **hub)
        print(f"  on the Hub:  {url}")
    return 0


def export_untrained(trainer: GeoTrainer, setup: TrainingSetup, folder: Path) -> None:
    """Exports the network as it is before training, and opens what the card's snippets open beside it."""
    weights = trainer.subspace.folded_state_dict() if trainer.subspace else setup.model.state_dict()
    write_network(trainer, setup, folder, weights)
    setup.open_processor(folder)


def save_network(trainer: GeoTrainer, setup: TrainingSetup, fallback_dir: str | None, **results: Any) -> str:
    """Writes the network, and what is known of its training, as one result; returns the folder that it is in.

    All processes take part.

    Raises:
        RuntimeError: It could not be written. The message says what is left.
    """
    first, output_dir = trainer.is_world_process_zero(), trainer.args.output_dir
    state_dict = gather_weights(trainer)

    def write(folder: Path) -> None:
        write_network(trainer, setup, folder, state_dict)
        if first:
            write_results(folder, **results)

    try:
        return save_where_there_is_room(output_dir, fallback_dir, write, first=first)
    except OutOfSpaceError:
        raise
    except Exception as error:
        raise RuntimeError(
            f"The network is trained but could not be written ({in_words(error)}): what there is of it lies in "
            f"{str(Path(output_dir, PARTIAL))!r}; to write it anew from the last checkpoint, run the same command with "
            "--resume_from_checkpoint true."
        ) from error


def measure(trainer: GeoTrainer, setup: TrainingSetup) -> tuple[dict[str, dict[str, float]], Exception | None]:
    """Evaluates the network on every split but that of training; returns figures by split, and what ended it early."""
    measured: dict[str, dict[str, float]] = {}
    try:
        with dead_workers_named(setup.datasets.values()):
            for split in (split for split in setup.datasets if split != "train"):
                measured[split] = trainer.evaluate(setup.datasets[split], metric_key_prefix=split)
    except Exception as error:
        return measured, error
    return measured, None


def write_network(
    trainer: GeoTrainer, setup: TrainingSetup, folder: Path, state_dict: dict[str, torch.Tensor] | None = None
) -> None:
    """Exports the network that `state_dict` holds, or the one that an evaluation would take now; all processes take part."""
    if state_dict is None:
        with trainer.evaluation_weights():
            return write_network(trainer, setup, folder, gather_weights(trainer))
    first = trainer.is_world_process_zero()
    if trainer.subspace and (first or trainer.is_fsdp_enabled):
        trainer.subspace.save(folder)
    if first:
        export_model(setup.model, folder, processor=setup.trainer.get("processing_class"), state_dict=state_dict)


def make_report(
    trainer: GeoTrainer,
    task: Task,
    setup: TrainingSetup,
    trained: dict[str, float],
    measured: dict[str, dict[str, float]],
    settings: dict[str, Any],
    hub_id: str | None,
) -> RunReport:
    """The finished run as plain data."""
    results = {
        split: {name: values[f"{split}_{name}"] for name in (task.metric, "loss")} for split, values in measured.items()
    }
    optimizer = str(getattr(trainer.args.optim, "value", trainer.args.optim))
    paper = get_method(optimizer).paper if optimizer in list_optimizers() else None
    subspace = trainer.subspace and trainer.subspace.config
    return RunReport(
        name=(hub_id or Path(trainer.args.output_dir).resolve().name).rsplit("/", 1)[-1],
        task=task.hub_name,
        metric=task.metric,
        optimizer=optimizer,
        paper=paper and {name: getattr(paper, name) for name in ("title", "url", "arxiv", "bibtex")},
        dataset_name=setup.dataset_name,
        dataset_id=setup.dataset_id,
        results=results,
        samples={
            split: len(data) if has_length(data) else measured.get(split, {}).get(f"{split}_samples")
            for split, data in setup.datasets.items()
        },
        settings=settings,
        steps=trainer.state.global_step,
        epochs=trainer.state.epoch or 0.0,
        seconds=trained["train_runtime"],
        hardware=hardware(trainer.accelerator.num_processes, trainer.args.device),
        parameters=setup.num_parameters,
        versions=installed_versions(),
        subspace=subspace and {name: getattr(subspace, name) for name in ("kind", "num_points", "layerwise")},
        hub_id=hub_id if hub_id and "/" in hub_id else None,  # a bare name is no address yet
        library=setup.library,
        template=task.template,
        fields={**setup.card_fields, "data_description": setup.describe_data()},
        base_model=setup.base_model,
    )


if __name__ == "__main__":
    sys.exit(main())
