"""Sequence copy: sequences of random bits, drawn as they are needed, that a network with a memory repeats."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from hf_geo.data.config import DataArguments
from hf_geo.data.sequences.repeat_copy import (
    EVAL,
    REPEAT_COPY,
    SIZES,
    TRAIN,
    RepeatCopy,
    all_sizes,
    collate_sequences,
    sizes_of,
)
from hf_geo.metrics.perplexity import IGNORED
from hf_geo.metrics.sequences import sequence_metrics
from hf_geo.models import ModelArguments, build_copy_model
from hf_geo.models.dnc import DncConfig, copy_loss
from hf_geo.models.sources import ModelSource, find_model

from .base import EvaluationOptions, EvaluationSetup, Task, TrainingSetup, refuse

DNC = DncConfig.model_type
EPOCH, EVAL_SAMPLES = 16_000, 1024
BEYOND = 3  # how much longer, and more often repeated, sequences of the split "sizes" are than those trained on
EVAL_BATCH_SIZE = 256


def build(model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments) -> TrainingSetup:
    """Builds or opens the model, and describes the sequences to draw.

    Raises:
        ValueError: Data that are not drawn, a setting for other tasks, or a model that does not exist or does not fit.
    """
    _check_data(data_args)
    refuse("label_smoothing_factor", args.label_smoothing_factor, 0.0, "is not for bits: leave it at 0")
    refuse("loss", model_args.loss, "cross-entropy", "is for classes, and bits have none: leave it out")
    from_scratch = model_args.model == DNC
    source = None if from_scratch else find_model(model_args.model)
    build_model = partial(
        build_copy_model,
        source.name if source else DNC,
        data_args.copy_bits + 2,
        data_args.copy_bits + 1,
        model_args=model_args.parsed_model_args,
        trust_remote_code=model_args.trust_remote_code,
    )
    model = build_model()
    sizes = all_sizes(data_args.copy_length, data_args.copy_repeats)
    training_set = RepeatCopy(data_args.max_train_samples or EPOCH, data_args.copy_bits, sizes, (args.seed, TRAIN))
    return TrainingSetup(
        model=model,
        new_model=build_model if from_scratch else None,
        datasets={"train": training_set, "eval": _evaluation_set(data_args), "sizes": _longer_set(data_args)},
        trainer={
            "compute_metrics": sequence_metrics,
            "preprocess_logits_for_metrics": score_sequences,
            "data_collator": collate_sequences,
        },
        settings={
            "remove_unused_columns": False,
            "train_sampling_strategy": "sequential",  # the sequences are random already
            "dataloader_persistent_workers": False,  # such workers would not notice that another epoch begins
        },
        dataset_name=REPEAT_COPY,
        dataset_id=None,
        base_model=source.name if source and source.kind == "hub" else None,
        library="transformers",
        card_fields={
            "architecture": model.config.model_type,
            "pretrained": not from_scratch,
            "license": source and source.license,
            "needs_hf_geo": model.config.model_type == DNC,
            "bits": data_args.copy_bits,
            "length": data_args.copy_length,
            "repeats": data_args.copy_repeats,
            "beyond": BEYOND,
        },
        describe_data=lambda: (
            f"Each sequence has 1 to {data_args.copy_length} words of {data_args.copy_bits} random bits, to be repeated 1 to "
            f"{data_args.copy_repeats} times; all are drawn anew for each update."
        ),
        open_processor=lambda folder: None,  # sequences are tensors already
    )


def reopen(sources: Sequence[ModelSource], data_args: DataArguments, options: EvaluationOptions) -> EvaluationSetup:
    """Opens trained models, and sequences of the sizes they were trained on.

    Raises:
        ValueError: The models or the data do not exist, or do not fit each other.
    """
    _check_data(data_args)
    bits, trust = data_args.copy_bits, options.trust_remote_code
    return EvaluationSetup(
        models=[build_copy_model(source.name, bits + 2, bits + 1, trust_remote_code=trust) for source in sources],
        dataset=REPEAT_COPY,
        split="eval",
        evaluation=DataLoader(
            _evaluation_set(data_args),
            batch_size=options.batch_size or EVAL_BATCH_SIZE,
            num_workers=options.num_workers,
            collate_fn=collate_sequences,
        ),
        recalibration=None,
        causal=False,
        processor=None,
        is_drawn=True,
    )


@torch.no_grad()
def score_sequences(logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Reduces a batch's logits to what `sequence_metrics` needs, for `Trainer(preprocess_logits_for_metrics=...)`.

    Args:
        logits: (batch, steps, bits), or a tuple that starts with them.
        labels: (batch, steps, bits), -100 where there is nothing to predict.

    Returns:
        (batch, 4): loss, 1 where all bits are right, length and repeats.
    """
    logits = logits[0] if isinstance(logits, tuple) else logits
    right = (((logits > 0) == (labels > 0)) | (labels == IGNORED)).flatten(1).all(1)
    loss = copy_loss(logits, labels)
    return torch.cat((loss[:, None], right[:, None].to(loss), sizes_of(labels).to(loss)), dim=1)


def _check_data(data_args: DataArguments) -> None:
    if data_args.dataset != REPEAT_COPY:
        raise ValueError(
            f"A model of sequences trains on {REPEAT_COPY}, which is drawn as it is needed, and not on {data_args.dataset}: "
            f"give --dataset {REPEAT_COPY}."
        )


def _evaluation_set(data_args: DataArguments) -> RepeatCopy:
    """The same sequences in every run, whatever its seed, so that runs can be compared."""
    sizes = all_sizes(data_args.copy_length, data_args.copy_repeats)
    return RepeatCopy(data_args.max_eval_samples or EVAL_SAMPLES, data_args.copy_bits, sizes, (0, EVAL))


def _longer_set(data_args: DataArguments) -> RepeatCopy:
    """Sequences of each size up to beyond those trained on."""
    sizes = all_sizes(BEYOND * data_args.copy_length, BEYOND * data_args.copy_repeats)
    each = max(1, (data_args.max_eval_samples or EVAL_SAMPLES) // len(sizes))
    return RepeatCopy(each * len(sizes), data_args.copy_bits, sizes, (0, SIZES), in_turn=True)


SEQUENCE_COPY = Task(
    name="sequence-copy",
    hub_name="other",  # the Hub has no name for it
    metrics=("sequence_accuracy",),
    template="sequence_copy.md.jinja",
    architectures=("ForSequenceCopy",),
    auto_class="AutoModel",
    models=(DNC,),
    datasets=(REPEAT_COPY,),
    options={"copy_bits", "copy_length", "copy_repeats"},
    build=build,
    reopen=reopen,
)
