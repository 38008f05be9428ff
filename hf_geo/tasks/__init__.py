"""The tasks that models are trained for: one file and one row of `TASKS` each; nothing else names them."""

from collections.abc import Sequence

import timm
from transformers import TrainingArguments

from hf_geo.data.config import DataArguments
from hf_geo.models import ModelArguments
from hf_geo.models.sources import ModelSource, find_model, warn_of_code

from .base import COMMON_OPTIONS, EvaluationOptions, EvaluationSetup, Task, TrainingSetup
from .causal_lm import CAUSAL_LM
from .image_classification import IMAGE_CLASSIFICATION
from .image_generation import IMAGE_GENERATION
from .sequence_copy import SEQUENCE_COPY
from .text_classification import TEXT_CLASSIFICATION
from .trained import find_trained, read_run_settings

__all__ = [
    "COMMON_OPTIONS",
    "TASKS",
    "EvaluationOptions",
    "EvaluationSetup",
    "Task",
    "TrainingSetup",
    "build_setup",
    "find_task",
    "find_trained",
    "infer_task",
    "open_trained",
    "read_run_settings",
]

DEFAULT = IMAGE_CLASSIFICATION
TASKS = {
    task.name: task for task in (IMAGE_CLASSIFICATION, TEXT_CLASSIFICATION, CAUSAL_LM, SEQUENCE_COPY, IMAGE_GENERATION)
}


def find_task(name: str | None, model: str | None, dataset: str | None) -> Task:
    """The task of a name, or the one that the model or the dataset is made for where no name is given.

    Raises:
        ValueError: There is no such task, or no such model to infer it from.
    """
    if name is None:
        return infer_task(model, dataset)
    if name not in TASKS:
        raise ValueError(f"There is no task {name!r}: --task is one of {', '.join(TASKS)}.")
    return TASKS[name]


def infer_task(model: str | None, dataset: str | None) -> Task:
    """The task that a model of this package is made for, else an embedded dataset, else any other model.

    Image classification is the task of models and datasets that say nothing.

    Raises:
        ValueError: There is no such model.
    """
    for task in TASKS.values():
        if model in task.models:
            return task
    for task in TASKS.values():
        if dataset in task.datasets:
            return task
    return DEFAULT if model is None or timm.is_model(model) else _task_of(find_model(model))


def build_setup(
    task: Task, model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments
) -> TrainingSetup:
    """Builds a model and its data for training.

    Raises:
        ValueError: The model or the dataset does not exist, or they do not fit each other.
    """
    if model_args.trust_remote_code:
        warn_of_code(model_args.model)
    return task.build(model_args, data_args, args)


def open_trained(
    sources: Sequence[ModelSource], data_args: DataArguments, options: EvaluationOptions
) -> EvaluationSetup:
    """Opens trained models of one task, and the data to evaluate them on.

    Args:
        sources: Image classifiers, or language models that share their vocabulary.
        data_args: The dataset and how it is read.
        options: Batch size, device and the like.

    Raises:
        ValueError: The models or the data do not exist, or do not fit each other.
    """
    first, *others = sorted({_task_of(source).name for source in sources})
    if others:
        raise ValueError(f"The models are of different tasks ({', '.join([first, *others])}), so they share no data.")
    if options.trust_remote_code:
        for source in sources:
            warn_of_code(source.name)
    setup = TASKS[first].reopen(sources, data_args, options)
    if data_args.eval_split is not None and data_args.eval_split == (data_args.test_split or "test"):
        setup.validation = None  # the evaluated split itself, on which nothing may be chosen
    setup.models = [model.to(options.device).eval() for model in setup.models]
    return setup


def _task_of(source: ModelSource) -> Task:
    return next((task for task in TASKS.values() if task.solves(source)), DEFAULT)
