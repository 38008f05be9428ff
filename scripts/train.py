# /// script
# dependencies = ["hf_geo"]
# [tool.uv.sources]
# hf_geo = { path = "..", editable = true }
# ///
"""Trains a model on a data set, evaluates it, and leaves a folder with its card that timm and transformers open.

    accelerate launch scripts/train.py --config configs/quickstart.yaml
    accelerate launch scripts/train.py --model resnet18 --dataset uoft-cs/cifar10 --optim fromage --num_train_epochs 30

Options come from a recipe (--config), from the command line, which wins, or keep their defaults.
"""

import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed

from hf_geo.checkpoints.compatibility import IncompatibleCheckpointError
from hf_geo.checkpoints.placing import place_result
from hf_geo.cli.config import parse_command_line
from hf_geo.cli.options import program_name
from hf_geo.cli.output import protect_output
from hf_geo.cli.preflight import check_export, check_options, check_settings, check_trainer, no_empty_folder
from hf_geo.cli.run_arguments import RUN_ARGUMENTS
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.data.bad_samples import DataError
from hf_geo.errors import in_words
from hf_geo.experiments.runs import origin
from hf_geo.experiments.training_run import Run
from hf_geo.hub.background import BackgroundPush, PushEachSave
from hf_geo.hub.contents import read_config
from hf_geo.hub.describe import describe
from hf_geo.hub.loading import loading_lines
from hf_geo.hub.push import check_destination, push_folder
from hf_geo.resources import command_line
from hf_geo.runs.folder import (
    check_output_dir,
    default_output_dir,
    portable_state,
    public_settings,
    remove_checkpoints,
)
from hf_geo.runs.report import write_measured
from hf_geo.subspaces import Subspace
from hf_geo.tasks import build_setup, find_task, find_trained
from hf_geo.training.callbacks import NoClassifierError, SameDataCallback
from hf_geo.training.nonfinite import NonFiniteTrainingError
from hf_geo.training.processes import UnusedParametersError

PROG = program_name(__file__)
# A setting of these is on the card even where it keeps its default.
ALWAYS_SHOWN = {"optim", "learning_rate", "per_device_train_batch_size", "seed"}
# A run resumes with the values of the checkpoint's run, or it could evaluate samples that were trained on.
SPLIT_OPTIONS = {"dataset", "dataset_config", "train_split", "eval_split", "eval_size", "streaming"}
# What is said in a sentence although it is found in training.
REFUSALS = (IncompatibleCheckpointError, NonFiniteTrainingError, UnusedParametersError, NoClassifierError, DataError)
PUSHED_CHECKPOINTS = {"checkpoint": "last", "all_checkpoints": "all"}  # by hub_strategy


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    with one_sentence_errors(PROG):
        run, options = prepare(argv)
    trainer, pusher = run.trainer, None
    if run.hub_id:
        pusher = BackgroundPush(run.hub_id, **options.hub)
        if trainer.args.hub_strategy != "end":
            trainer.add_callback(PushEachSave(pusher, run.write_network))
    try:
        trained = run.train(options.checkpoint)
    except REFUSALS as error:
        with one_sentence_errors(PROG):
            raise error
    # The network is written before anything else is tried: what fails from here on costs no training.
    problem = run.finalize()
    with one_sentence_errors(PROG):
        folder = run.save_network(trained)
    measured, problem = ({}, problem) if problem else run.evaluate()
    report = run.report(trained, measured)
    with one_sentence_errors(PROG):
        if run.is_main_process:
            write_measured(folder, report, measured, portable_state(trainer.state))
            description = describe(folder, trust_remote_code=options.trust_remote_code)
            needs_hf_geo = report.fields.get("needs_hf_geo", False)
            loading = loading_lines(read_config(folder), folder, f"local-dir:{folder}", needs_hf_geo=needs_hf_geo)
        if problem:
            command = command_line("evaluate", "--model", folder)
            raise RuntimeError(
                f"The network is trained and complete in {folder!r}, but it could not be evaluated ({in_words(problem)}): "
                f"`{command}` does that again."
            ) from problem
    if not run.is_main_process:
        return 0
    print(f"\n{report.summary(folder, loading[0], description.made)}")
    if trainer.subspace:
        print(f"  explore it:  {command_line('explore', folder)}")
    if pusher is None:
        print(f"  push it:     {command_line('push', folder)} NAMESPACE/NAME")
        return 0
    pusher.wait()
    checkpoints = PUSHED_CHECKPOINTS.get(trainer.args.hub_strategy.value, "none")
    with one_sentence_errors(PROG):
        url = push_folder(folder, run.hub_id, checkpoints=checkpoints, **options.hub)
    print(f"  on the Hub:  {url}")
    return 0


@dataclass(frozen=True)
class Options:
    """What the command line says about a run besides how it trains.

    Args:
        checkpoint: The checkpoint to resume from: a folder, True for the newest one, None for a new run.
        hub: Arguments of every push: `private` and `token`.
        trust_remote_code: Whether code that comes with a model may run.
    """

    checkpoint: str | bool | None
    hub: dict[str, Any]
    trust_remote_code: bool


def prepare(argv: Sequence[str] | None) -> tuple[Run, Options]:
    """Parses the command line, builds what the run needs, and checks whatever can be checked before training.

    Raises:
        ValueError: A setting, the model, the data, the output folder or the Hub repository cannot be used.
    """
    model_args, data_args, subspace_args, run_args, args, chosen = parse_command_line(
        RUN_ARGUMENTS,
        argv,
        prog=PROG,
        usage=f"{PROG} [--config FILE [--variant NAME]] [--smoke] [--OPTION VALUE ...]",
        description=__doc__,
    )
    logging.basicConfig(level=logging.INFO if args.should_log else logging.WARNING, format="%(message)s")
    # transformers asks for pinned memory on every machine, and torch warns of it at every epoch.
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
    check_options(task, chosen.typed, model_args, data_args)  # after the task's own refusals, which give reasons
    for name, value in setup.settings.items():
        setattr(args, name, value)
    subspace = subspace_args.config
    if subspace:
        ends = {2 * i: find_trained(name).weights() for i, name in enumerate(subspace_args.subspace_ends or ())}
        new_model = None if ends else setup.new_model  # the bend starts halfway between the ends
        subspace = Subspace.attach(setup.model, subspace, model_init=new_model, points=ends, seed=args.seed)
    check_settings(args, metrics=(*task.metrics, "loss"))
    with no_empty_folder(args.output_dir):
        trainer = setup.trainer_class(
            setup.model,
            args,
            train_dataset=setup.datasets["train"],
            eval_dataset=setup.datasets["eval"],
            **setup.trainer,
            subspace=subspace,
        )
        check_trainer(trainer)
        trainer.add_callback(SameDataCallback(public_settings(data_args, only=SPLIT_OPTIONS)))
        run = Run(
            task,
            setup,
            trainer,
            settings=(model_args, data_args, subspace_args, args),
            shown=chosen.given | ALWAYS_SHOWN,
            origin=origin(chosen.config, chosen.variant),
            fallback_dir=run_args.fallback_dir,
            hub_id=hub_id,
        )
        folders = (args.output_dir, run_args.fallback_dir)
        check_export(run.export_untrained, folders, first=run.is_main_process)
    if run.is_main_process:
        place_result(args.output_dir)
        if run_args.overwrite:
            remove_checkpoints(args.output_dir)
    return run, Options(checkpoint, hub, model_args.trust_remote_code)


if __name__ == "__main__":
    sys.exit(main())
