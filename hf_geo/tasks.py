"""What a run needs that depends on its task: model, data, metrics, and what its card says about them."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TimmWrapperForImageClassification,
    TrainingArguments,
)

from hf_geo.data.config import DataArguments
from hf_geo.data.language import LanguageData
from hf_geo.data.text import DOCS, load_text_data
from hf_geo.data.transforms import MODES
from hf_geo.data.vision import load_image_data
from hf_geo.losses import LOSSES, ClassificationLoss, check_top_k
from hf_geo.metrics import image_classification_metrics, score_samples
from hf_geo.metrics.perplexity import language_metrics, nll_per_row
from hf_geo.models import (
    ModelArguments,
    WordTransformerConfig,
    build_image_classifier,
    build_language_model,
    check_images,
    input_config,
    room_for_tokens,
)
from hf_geo.models.sources import find_model, opening, warn_of_code

WORD_TRANSFORMER = WordTransformerConfig.model_type
PROMPT_WORDS = 6  # of the evaluation text, which the card's sample continues


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
        trainer: What else the Trainer is made with.
        settings: Training arguments that follow from the task.
        dataset_name: How to call the data set.
        dataset_id: Its id on the Hub, if it has one.
        template: The card's template.
        library: What opens the exported folder first: "timm" (and then transformers too) or "transformers".
        how_to_load: A line of Python that opens the exported {folder}, or what {timm} calls it.
        base_model: Hub id of the pretrained weights, if any.
        card: Says, when the run has ended, what the template names beyond what every run has.
        open_processor: Opens what the card's snippets open beside the model, from an exported folder.
    """

    task: str
    model: PreTrainedModel
    new_model: Callable[[], PreTrainedModel] | None
    num_parameters: int
    datasets: Mapping[str, torch.utils.data.Dataset]
    metric: str
    trainer: Mapping[str, Any]
    dataset_name: str
    dataset_id: str | None
    template: str
    library: str
    how_to_load: str
    card: Callable[[], dict[str, Any]]
    open_processor: Callable[[Path], Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    base_model: str | None = None


def make_job(task: str | None, model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments) -> Job:
    """The job of a task, told from the model and the data where it is not named.

    Raises:
        ValueError: An unknown task, model or data set, or ones that do not fit each other.
    """
    task = task or guess_task(model_args.model, data_args.dataset)
    if task not in TASKS:
        raise ValueError(f"There is no task {task!r}: --task is {' or '.join(TASKS)}.")
    if model_args.trust_remote_code:
        warn_of_code(model_args.model)
    return TASKS[task](model_args, data_args, args)


def guess_task(model: str | None, dataset: str | None) -> str:
    """The task that a model is made for, or that an embedded data set is."""
    if model == WORD_TRANSFORMER or dataset == DOCS:
        return "causal-lm"
    if model is None or timm.is_model(model):
        return "image-classification"
    architectures = find_model(model).config.get("architectures") or [""]
    return (
        "causal-lm"
        if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures)
        else "image-classification"
    )


def image_classification(model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments) -> Job:
    """Opens the data, builds the model that fits it, and puts the data into the model's form.

    Raises:
        ValueError: The data set or the model does not exist or does not fit.
    """
    if args.neftune_noise_alpha is not None:
        raise ValueError(
            f"--neftune_noise_alpha {args.neftune_noise_alpha} is noise on the embeddings of words, and an image classifier "
            "has none: leave it out."
        )
    trust = model_args.trust_remote_code
    data = load_image_data(data_args, seed=args.seed)
    build = functools.partial(
        build_image_classifier,
        model_args.model,
        num_classes=data.num_classes,
        id2label=data.id2label,
        pretrained=model_args.pretrained,
        model_args=model_args.parsed_model_args,
        img_size=data_args.image_size,
        data_config=data.data_config,
        trust_remote_code=trust,
    )
    model = build()
    config = input_config(model, native_size=data.native_size, image_size=data_args.image_size, trust_remote_code=trust)
    by_timm = isinstance(model, TimmWrapperForImageClassification)
    size = config["input_size"] if by_timm else config.size
    check_images(model, model_args.model, size)
    trainer = {"compute_metrics": image_classification_metrics, "preprocess_logits_for_metrics": score_samples}
    trainer |= _loss(model_args, data.num_classes, args)
    if not by_timm:  # timm keeps how images are prepared in the model's configuration
        trainer["processing_class"] = config.processor
    architecture = getattr(model.config, "architecture", model.config.model_type)
    ours = timm.is_model(architecture) and timm.model_entrypoint(architecture).__module__.startswith("hf_geo.")
    pretrained = model_args.pretrained or model_args.model.split(".")[0] != architecture
    source = find_model(model_args.model)
    return Job(
        task="image-classification",
        model=model,
        new_model=None if pretrained else build,
        num_parameters=model.num_parameters(),
        datasets={split: data.dataset(split, config) for split in data.splits},
        metric="accuracy",
        trainer=trainer,
        settings={"remove_unused_columns": False},  # the data sets hold what the model takes and nothing else
        dataset_name=data.name,
        dataset_id=data.hub_id,
        base_model=source.name if source.kind == "hub" else None,
        template="vision.md.jinja",
        library="timm" if by_timm else "transformers",
        how_to_load="timm.create_model({timm}, pretrained=True)"
        if by_timm
        else "AutoModelForImageClassification.from_pretrained({folder})",
        card=lambda: {
            "architecture": architecture,
            "pretrained": pretrained,
            "classes": data.num_classes,
            "image_size": list(size),
            "image_mode": MODES[size[0]],
            "needs_hf_geo": ours,
            "data_description": data.description,  # by then with what could not be read
        },
        open_processor=functools.partial(AutoImageProcessor.from_pretrained, trust_remote_code=trust),
    )


def _loss(model_args: ModelArguments, num_classes: int, args: TrainingArguments) -> dict[str, Any]:
    """What the Trainer is told about the loss: nothing where the model's own is meant."""
    if model_args.loss == "cross-entropy":
        return {}
    check_top_k(model_args.top_k, num_classes)
    if args.label_smoothing_factor:
        raise ValueError(
            f"--label_smoothing_factor is for the cross-entropy: leave it at 0 with --loss {model_args.loss}."
        )
    settings = {"temperature": model_args.loss_temperature} if model_args.loss == "smooth-top-k" else {}
    return {"compute_loss_func": ClassificationLoss(LOSSES[model_args.loss], k=model_args.top_k, **settings)}


def causal_lm(model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments) -> Job:
    """Opens the text, makes or loads the tokenizer and the model, and lays the text out for the Trainer.

    Raises:
        ValueError: The data set, the model or its tokenizer does not exist or they do not fit.
    """
    from_scratch = model_args.model == WORD_TRANSFORMER
    if args.label_smoothing_factor:
        # transformers shifts the labels only for the classes it knows by name, and would smooth the wrong words.
        raise ValueError("--label_smoothing_factor is not for language models here: leave it at 0.")
    if model_args.loss != "cross-entropy":
        raise ValueError(f"--loss {model_args.loss} is for image classifiers: leave it out for a language model.")
    source = None if from_scratch else find_model(model_args.model)
    text = load_text_data(data_args)
    if from_scratch:
        tokenizer = text.word_tokenizer(data_args.min_frequency)
    else:
        with opening("tokenizer", model_args.model):
            tokenizer = AutoTokenizer.from_pretrained(model_args.model, trust_remote_code=model_args.trust_remote_code)
    build = functools.partial(
        build_language_model,
        model_args.model,
        tokenizer,
        model_args=model_args.parsed_model_args,
        trust_remote_code=model_args.trust_remote_code,
    )
    model = build()
    longest = getattr(model.config, "max_position_embeddings", None)
    layout = LanguageData(
        text,
        tokenizer,
        data_args,
        processes=args.world_size,
        accumulation_steps=args.gradient_accumulation_steps,
        batch_size=args.per_device_train_batch_size,
        eval_batch_size=args.per_device_eval_batch_size,
        longest=longest,
    )
    splits = [split for split in text.splits if split != "train"]
    sets = {"train": layout.training_set(), **{split: layout.evaluation_set(split) for split in splits}}
    prompt = first_words(layout.tokens("eval"), tokenizer, longest)
    return Job(
        task="text-generation",
        model=model,
        new_model=build if from_scratch else None,
        num_parameters=model.num_parameters(),
        datasets=sets,
        metric="perplexity",
        trainer={
            "compute_metrics": language_metrics,
            "preprocess_logits_for_metrics": nll_per_row,
            "data_collator": layout.collate,
            "processing_class": tokenizer,
        },
        settings={
            "remove_unused_columns": False,
            "per_device_train_batch_size": layout.batch_size,
            "per_device_eval_batch_size": layout.eval_batch_size,
            "train_sampling_strategy": layout.sampling,
        },
        dataset_name=text.name,
        dataset_id=text.hub_id,
        base_model=source.name if source and source.kind == "hub" else None,
        template="language.md.jinja",
        library="transformers",
        how_to_load="AutoModelForCausalLM.from_pretrained({folder})",
        card=lambda: {
            "architecture": model.config.model_type,
            "pretrained": not from_scratch,
            "needs_hf_geo": model.config.model_type == WORD_TRANSFORMER,
            "vocabulary": f"{len(tokenizer):,}",
            "data_description": text.description,
            "measured": layout.perplexity,
            "prompt": prompt,
            "new_tokens": room_for_tokens(model, len(tokenizer(prompt)["input_ids"])),
        },
        open_processor=functools.partial(AutoTokenizer.from_pretrained, trust_remote_code=model_args.trust_remote_code),
    )


def first_words(tokens: torch.Tensor, tokenizer: PreTrainedTokenizerBase, longest: int | None = None) -> str:
    """The first words of a text that the tokenizer knows, at most half of the `longest` text that the model reads."""
    known = tokens if tokenizer.unk_token_id is None else tokens[tokens != tokenizer.unk_token_id]
    return tokenizer.decode(known[: min(PROMPT_WORDS, (longest or 2 * PROMPT_WORDS) // 2)]).strip()


TASKS = {"image-classification": image_classification, "causal-lm": causal_lm}
