"""What a run needs that depends on its task: model, data, metrics, and what its card says about them."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from transformers import EvalPrediction, PreTrainedModel

import hf_geo.models.cifar
from hf_geo.data.config import DataArguments
from hf_geo.data.vision import load_image_data
from hf_geo.metrics import image_classification_metrics
from hf_geo.models.build import build_image_classifier, input_config
from hf_geo.models.config import ModelArguments

TASKS = ("image-classification",)


@dataclass
class Job:
    """A model and its data, ready for a Trainer.

    Args:
        task: The Hub's name of the task.
        model: What is trained.
        new_model: Makes another model like it with other random weights; None where the weights are pretrained.
        num_parameters: Of one such model.
        datasets: By split: "train", "eval" and, where there is one, "test".
        metric: The main metric.
        compute_metrics: For the Trainer.
        processor: Tokenizer or image processor to export along with the model; None where the model brings it.
        dataset_name: How to call the data set.
        dataset_id: Its id on the Hub, if it has one.
        template: The card's template.
        how_to_load: A line of Python that opens the exported {folder}.
        base_model: Hub id of the pretrained weights, if any.
        card: What the template names beyond what every run has.
    """

    task: str
    model: PreTrainedModel
    new_model: Callable[[], PreTrainedModel] | None
    num_parameters: int
    datasets: Mapping[str, torch.utils.data.Dataset]
    metric: str
    compute_metrics: Callable[[EvalPrediction], dict[str, float]]
    dataset_name: str
    dataset_id: str | None
    template: str
    how_to_load: str
    base_model: str | None = None
    processor: Any = None
    card: dict[str, Any] = field(default_factory=dict)


def image_classification(model_args: ModelArguments, data_args: DataArguments, seed: int) -> Job:
    """Opens the data, builds the model that fits it, and puts the data into the model's form.

    Raises:
        ValueError: The data set or the model does not exist or does not fit.
    """
    data = load_image_data(data_args, seed=seed)
    build = functools.partial(
        build_image_classifier,
        model_args.model,
        num_classes=data.num_classes,
        id2label=data.id2label,
        pretrained=model_args.pretrained,
        model_args=model_args.parsed_model_args,
        img_size=data_args.image_size,
        data_config=data.data_config,
    )
    model = build()
    config = input_config(model)
    architecture = getattr(model.config, "architecture", model.config.model_type)
    ours = architecture in timm.list_models(module=hf_geo.models.cifar.__name__.rsplit(".", 1)[-1])
    pretrained = model_args.pretrained or model_args.model.split(".")[0] != architecture
    return Job(
        task="image-classification",
        model=model,
        new_model=None if pretrained else build,
        num_parameters=model.num_parameters(),
        datasets={split: data.dataset(split, config) for split in data.splits},
        metric="accuracy",
        compute_metrics=image_classification_metrics,
        dataset_name=data.name,
        dataset_id=data.hub_id,
        template="vision.md.jinja",
        how_to_load='timm.create_model("local-dir:{folder}", pretrained=True)',
        card={
            "architecture": architecture,
            "pretrained": pretrained,
            "classes": data.num_classes,
            "image_size": list(config["input_size"]),
            "needs_hf_geo": ours,
            "data_description": data.description,
        },
    )
