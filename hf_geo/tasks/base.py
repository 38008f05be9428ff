"""What every task offers: a model and data to train, and the same opened again to evaluate."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainingArguments

from hf_geo.data.config import DataArguments
from hf_geo.evaluation.norms import running_statistics
from hf_geo.models import ModelArguments
from hf_geo.models.sources import ModelSource, brings_code
from hf_geo.training.trainer import GeoTrainer


@dataclass
class TrainingSetup:
    """A model and its data, ready for a Trainer.

    Args:
        model: The model to train.
        new_model: Builds another model like it with other random weights; None where the weights are pretrained.
        datasets: Datasets by split: "train", "eval" and, where there is one, "test".
        trainer: Further arguments of the Trainer.
        settings: Training arguments that follow from the task.
        dataset_name: The dataset's name for people.
        dataset_id: The dataset's id on the Hub, if it has one.
        base_model: Hub id of the pretrained weights, if any.
        library: The library that opens the exported folder first: "timm" (transformers opens it too) or "transformers".
        card_fields: The fields of the task's card template; those that the model itself answers are added.
        describe_data: Describes the data, with what could not be read, when the run has ended.
        open_processor: Opens the processor that the card's snippets use, from an exported folder.
        trainer_class: What trains the model.
    """

    model: PreTrainedModel
    new_model: Callable[[], PreTrainedModel] | None
    datasets: Mapping[str, torch.utils.data.Dataset]
    trainer: Mapping[str, Any]
    settings: Mapping[str, Any]
    dataset_name: str
    dataset_id: str | None
    base_model: str | None
    library: str
    card_fields: Mapping[str, Any]
    describe_data: Callable[[], str]
    open_processor: Callable[[Path], Any]
    trainer_class: type[GeoTrainer] = GeoTrainer
    num_parameters: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_parameters = self.model.num_parameters()  # of one model, before a subspace adds control points
        self.card_fields = {
            **self.card_fields,
            "has_statistics": bool(running_statistics(self.model)),
            "brings_code": brings_code(self.model),
        }


@dataclass(frozen=True)
class SampleView:
    """How samples are shown to people, and how a sample of their own is prepared.

    Args:
        fields: What a sample of one's own consists of: ("image",), ("prompt",), or the names of one or two texts.
        prepare: Makes a batch of one sample of its fields. Raises `ValueError` where they cannot be used.
        show: From a batch, a picture or text for each sample; None for samples that are not shown.
        classes: Names of the classes, or of the tokens.
        example: Fields that a visitor may start from; empty without.
    """

    fields: tuple[str, ...]
    prepare: Callable[..., Mapping[str, torch.Tensor]]
    show: Callable[[Mapping[str, torch.Tensor]], list[PIL.Image.Image | str]] | None
    classes: Sequence[str]
    example: tuple[str, ...] = ()


@dataclass
class EvaluationSetup:
    """Trained models and the data to evaluate them on.

    Args:
        models: The models, in evaluation mode.
        dataset: The dataset's name for people.
        split: The evaluated split: "test" where there is one, else "eval".
        evaluation: Batches of that split.
        recalibration: Batches of training samples to take norm statistics from; None for language models.
        causal: Whether a logit at a token predicts the next token.
        processor: The image processor or tokenizer that an export of the first model needs, if any.
        validation: Batches of the "eval" split where it is not the evaluated one: to fit and to choose on.
        corrupted: Opens the evaluated split with its images corrupted, by kind and severity; None where a task has no images.
        open_shifted: Opens a data set of images by its name, with the models' classes; one split is enough.
            `needs_classes=False` opens it without labels. None where a task has no such data sets.
        measure: Measures the models where they have no predictions to compare: given the folder for pictures, if any, returns
            the metrics of each model and the pictures' paths in the folder.
        is_drawn: Whether samples are drawn as they are needed, so that there is nothing to split.
        view: How samples are shown and made; None where a task has nothing to show.
    """

    models: Sequence[PreTrainedModel]
    dataset: str
    split: str
    evaluation: DataLoader
    recalibration: "RepeatableLoader | None"
    causal: bool
    processor: Any
    validation: DataLoader | None = None
    corrupted: Callable[[str, int], DataLoader] | None = None
    open_shifted: Callable[..., DataLoader] | None = None
    measure: Callable[[Path | None], tuple[list[dict[str, Any]], list[str]]] | None = None
    is_drawn: bool = False
    view: SampleView | None = None

    def validation_or(self, otherwise: str) -> DataLoader:
        """The validation split.

        Args:
            otherwise: What to do without one, as the end of a sentence.

        Raises:
            ValueError: There is none besides the split that is reported on.
        """
        if self.validation is not None:
            return self.validation
        if self.is_drawn:
            raise ValueError(f"{self.dataset} is drawn as it is needed and has no validation split: {otherwise}.")
        raise ValueError(
            f"{self.dataset} has no split to choose on besides the reported one, {self.split!r}: name another one with "
            f"--eval_split or --test_split, or {otherwise}."
        )


@dataclass(frozen=True)
class EvaluationOptions:
    """How trained models are opened and their data read.

    Args:
        batch_size: Samples of a batch; None for the task's default.
        num_workers: Processes that prepare samples.
        seed: Fixes which training samples are read first.
        device: Where the models go.
        trust_remote_code: Run Python code that comes with a model.
        fid_model: In whose features generated images are compared with real ones, see `hf_geo.models.gan.features`; None for
            those of the run.
    """

    batch_size: int | None = None
    num_workers: int = 0
    seed: int = 0
    device: str = "cpu"
    trust_remote_code: bool = False
    fid_model: str | None = None


# Options of models and data: those that every task reads, those of datasets that have splits, and those of images.
COMMON_OPTIONS = {"model", "model_args", "trust_remote_code", "dataset", "max_train_samples", "max_eval_samples"}
OPTIONS_OF_SPLITS = {"dataset_config", "train_split", "eval_split", "eval_size", "test_split"}
OPTIONS_OF_IMAGES = {
    *OPTIONS_OF_SPLITS, "image_column", "label_column", "max_bad_samples", "label_noise", "label_noise_seed",
    "image_size", "augmentation", "crop_shift", "crop_border", "color_jitter",
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A kind of problem: how its models and data are built for training and opened again for evaluation.

    Args:
        name: Value of --task.
        hub_name: The task's name on the Hub.
        metrics: What is measured besides the loss, the main one first, without which no run is; `hf_geo.metrics.directions` knows
            whether higher is better.
        template: The card template of its models.
        architectures: Endings of the names of transformers' classes that solve the task.
        auto_class: The class of transformers that opens its models.
        models: Models of this package that solve it and are in no other registry.
        datasets: Embedded datasets that are made for it.
        options: The options of models and data that it reads, besides `COMMON_OPTIONS`.
        build: Builds a model and its data for training. Raises `ValueError` where they do not exist or do not fit.
        reopen: Opens trained models and their data for evaluation. Raises `ValueError` where they do not fit.
    """

    name: str
    hub_name: str
    metrics: tuple[str, ...]
    template: str
    architectures: tuple[str, ...]
    auto_class: str
    build: Callable[[ModelArguments, DataArguments, TrainingArguments], TrainingSetup]
    reopen: Callable[[Sequence[ModelSource], DataArguments, EvaluationOptions], EvaluationSetup]
    options: Collection[str]
    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """The main metric."""
        return self.metrics[0]

    def solves(self, source: ModelSource) -> bool:
        """Whether a model of transformers is made for this task."""
        return any(name.endswith(self.architectures) for name in source.config.get("architectures") or ())


class RepeatableLoader:
    """A loader that gives the same batches each time it is iterated."""

    def __init__(self, make_loader: Callable[[], DataLoader]) -> None:
        self.make_loader = make_loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.make_loader())

    def __len__(self) -> int:
        return len(self.make_loader())


def refuse(option: str, value: Any, default: Any, reason: str) -> None:
    """Raises `ValueError` where the user gives an option that has no meaning here."""
    if value != default:
        raise ValueError(f"--{option} {value} {reason}.")


def final_split(splits: Mapping[str, Any]) -> str:
    """The split whose figures count: "test" where there is one."""
    return "test" if "test" in splits else "eval"
