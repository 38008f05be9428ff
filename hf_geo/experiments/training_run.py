"""One training run from the first update to its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import has_length

from hf_geo.checkpoints.placing import PARTIAL
from hf_geo.checkpoints.results import OutOfSpaceError, save_where_there_is_room
from hf_geo.data.bad_samples import dead_workers_named
from hf_geo.errors import in_words
from hf_geo.hub.card import installed_versions
from hf_geo.hub.export import export_model
from hf_geo.optim import get_method, list_optimizers
from hf_geo.runs.folder import hardware, portable_state, public_settings
from hf_geo.runs.report import RunReport, write_results
from hf_geo.tasks import Task, TrainingSetup
from hf_geo.training.saving import gather_weights
from hf_geo.training.trainer import GeoTrainer


@dataclass
class Run:
    """A run that is ready to train.

    Args:
        task: The task.
        setup: The model and its data.
        trainer: The Trainer.
        settings: All argument objects, for the record.
        shown: Names of the settings that the card shows.
        origin: The recipe and variant that the run comes from.
        fallback_dir: Where the result goes if the disk refuses it in the run's folder.
        hub_id: The repository that the run is pushed to, if any.
    """

    task: Task
    setup: TrainingSetup
    trainer: GeoTrainer
    settings: tuple[Any, ...]
    shown: set[str]
    origin: dict[str, Any]
    fallback_dir: str | None = None
    hub_id: str | None = None

    @property
    def is_main_process(self) -> bool:
        return self.trainer.is_world_process_zero()

    def train(self, checkpoint: str | bool | None) -> dict[str, float]:
        """Trains, from a checkpoint if one is given; returns the Trainer's figures.

        Raises:
            IncompatibleCheckpointError: There is no such checkpoint, or it is of another model or optimizer.
            NonFiniteTrainingError: Too many updates in a row were not finite.
            DataError: Too many samples could not be read, or a data-loader worker died.
        """
        with dead_workers_named(self.setup.datasets.values()):
            return self.trainer.train(resume_from_checkpoint=checkpoint).metrics

    def finalize(self) -> Exception | None:
        """Gives the network its final weights; returns the error that kept it from taking norm statistics of them.

        Of several processes none can go on without the others' statistics: an error is raised there.
        """
        try:
            self.trainer.finalize()
        except Exception as error:
            if self.trainer.args.world_size > 1:
                raise
            return error
        return None

    def write_network(self, folder: Path, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Exports a network in the model's form; all processes take part.

        Args:
            folder: Where it goes.
            state_dict: Its weights; those that an evaluation would use now if None.
        """
        trainer = self.trainer
        if state_dict is None:
            with trainer.evaluation_weights():
                return self.write_network(folder, gather_weights(trainer))
        if trainer.subspace and (self.is_main_process or trainer.is_fsdp_enabled):
            trainer.subspace.save(folder)
        if self.is_main_process:
            processor = self.setup.trainer.get("processing_class")
            export_model(self.setup.model, folder, processor=processor, state_dict=state_dict)

    def export_untrained(self, folder: Path) -> None:
        """Exports the network as it is before training, and opens what the card's snippets open beside it."""
        subspace = self.trainer.subspace
        self.write_network(folder, subspace.folded_state_dict() if subspace else self.setup.model.state_dict())
        self.setup.open_processor(folder)

    def save_network(self, trained: dict[str, float]) -> str:
        """Writes the network and the record of its training as one result; returns the folder that holds it.

        All processes take part.

        Args:
            trained: The Trainer's figures.

        Raises:
            RuntimeError: The result could not be written. The message says what is left.
        """
        args, processes = self.trainer.args, self.trainer.accelerator.num_processes
        state_dict = gather_weights(self.trainer)
        results = {
            "train_results": trained | {"hardware": hardware(processes, args.device), "num_processes": processes},
            "training_args": public_settings(*self.settings) | self.origin,
            "trainer_state": portable_state(self.trainer.state),
        }

        def write(folder: Path) -> None:
            self.write_network(folder, state_dict)
            if self.is_main_process:
                write_results(folder, **results)

        try:
            return save_where_there_is_room(args.output_dir, self.fallback_dir, write, first=self.is_main_process)
        except OutOfSpaceError:
            raise
        except Exception as error:
            raise RuntimeError(
                f"The network is trained but could not be written ({in_words(error)}): the part that was written is in "
                f"{str(Path(args.output_dir, PARTIAL))!r}; to write it anew from the last checkpoint, run the same command "
                "with --resume_from_checkpoint true."
            ) from error

    def evaluate(self) -> tuple[dict[str, dict[str, float]], Exception | None]:
        """Evaluates the network on every split but that of training.

        Returns:
            The figures by split, and the error that ended the evaluation early, if any: by then the network is written.
        """
        measured: dict[str, dict[str, float]] = {}
        evaluated = {split: data for split, data in self.setup.datasets.items() if split != "train"}
        try:
            with dead_workers_named(self.setup.datasets.values()):
                for split, data in evaluated.items():
                    measured[split] = self.trainer.evaluate(data, metric_key_prefix=split)
        except Exception as error:
            return measured, error
        return measured, None

    def report(self, trained: dict[str, float], measured: dict[str, dict[str, float]]) -> RunReport:
        """The finished run as plain data."""
        task, setup, trainer = self.task, self.setup, self.trainer
        optimizer = str(getattr(trainer.args.optim, "value", trainer.args.optim))
        paper = get_method(optimizer).paper if optimizer in list_optimizers() else None
        subspace = trainer.subspace and trainer.subspace.config
        return RunReport(
            name=(self.hub_id or Path(trainer.args.output_dir).resolve().name).rsplit("/", 1)[-1],
            task=task.hub_name,
            metric=task.metric,
            optimizer=optimizer,
            paper=paper and {name: getattr(paper, name) for name in ("title", "url", "arxiv", "bibtex")},
            dataset_name=setup.dataset_name,
            dataset_id=setup.dataset_id,
            results={
                split: {
                    name: values[f"{split}_{name}"] for name in (*task.metrics, "loss") if f"{split}_{name}" in values
                }
                for split, values in measured.items()
            },
            samples={
                split: len(data) if has_length(data) else measured.get(split, {}).get(f"{split}_samples")
                for split, data in setup.datasets.items()
            },
            settings=public_settings(*self.settings, only=self.shown),
            steps=trainer.state.global_step,
            epochs=trainer.state.epoch or 0.0,
            seconds=trained["train_runtime"],
            hardware=hardware(trainer.accelerator.num_processes, trainer.args.device),
            parameters=setup.num_parameters,
            versions=installed_versions(),
            subspace=subspace
            and {name: getattr(subspace, name) for name in ("kind", "num_points", "layerwise", "fixed_ends")},
            hub_id=self.hub_id if self.hub_id and "/" in self.hub_id else None,  # a bare name is no address yet
            library=setup.library,
            template=task.template,
            fields={**setup.card_fields, "data_description": setup.describe_data()},
            base_model=setup.base_model,
        )
