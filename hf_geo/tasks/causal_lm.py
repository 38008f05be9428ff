"""Causal language models: any text, the word-level Transformer or any causal model of transformers'."""

from collections.abc import Sequence
from functools import partial

import torch
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, PreTrainedTokenizerBase, TrainingArguments

from hf_geo.data.config import DataArguments
from hf_geo.data.language import LanguageData
from hf_geo.data.text import load_text_data
from hf_geo.embedded import DOCS
from hf_geo.metrics.perplexity import language_metrics, nll_per_row
from hf_geo.models import (
    ModelArguments,
    WordTransformerConfig,
    build_language_model,
    encode_prompt,
    max_positions,
    open_tokenizer,
    room_for_tokens,
)
from hf_geo.models.sources import ModelSource, find_model

from .base import (
    OPTIONS_OF_SPLITS,
    EvaluationOptions,
    EvaluationSetup,
    SampleView,
    Task,
    TrainingSetup,
    final_split,
    refuse,
)

WORD_TRANSFORMER = WordTransformerConfig.model_type
PROMPT_WORDS = 6  # of the evaluation text, which the card's sample continues
EVAL_BATCH_SIZE = 8


def build(model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments) -> TrainingSetup:
    """Opens the text, builds or opens the tokenizer and the model, and lays the text out for the Trainer.

    Raises:
        ValueError: The dataset, the model or its tokenizer does not exist, or they do not fit each other.
    """
    # transformers shifts the labels only for the classes it knows by name, and would smooth the wrong words.
    not_here = "is not for language models here: leave it at 0"
    refuse("label_smoothing_factor", args.label_smoothing_factor, 0.0, not_here)
    refuse("loss", model_args.loss, "cross-entropy", "is for image classifiers: leave it out for a language model")
    from_scratch = model_args.model == WORD_TRANSFORMER
    if not from_scratch:
        own = f"is for {WORD_TRANSFORMER!r}: {model_args.model!r} brings its own vocabulary"
        refuse("min_frequency", data_args.min_frequency, 1, own)
    source = None if from_scratch else find_model(model_args.model)
    name = source.name if source else WORD_TRANSFORMER
    text = load_text_data(data_args)
    trust = model_args.trust_remote_code
    tokenizer = text.word_tokenizer(data_args.min_frequency) if from_scratch else open_tokenizer(source, trust)
    build_model = partial(
        build_language_model,
        name,
        tokenizer,
        model_args=model_args.parsed_model_args,
        trust_remote_code=trust,
    )
    model = build_model()
    layout = LanguageData(
        text,
        tokenizer,
        data_args,
        processes=args.world_size,
        accumulation_steps=args.gradient_accumulation_steps,
        batch_size=args.per_device_train_batch_size,
        eval_batch_size=args.per_device_eval_batch_size,
        longest=max_positions(model),
    )
    evaluation_sets = {split: layout.evaluation_set(split) for split in text.splits if split != "train"}
    prompt = choose_prompt(layout.tokens("eval"), tokenizer, max_positions(model))
    return TrainingSetup(
        model=model,
        new_model=build_model if from_scratch else None,
        datasets={"train": layout.training_set(), **evaluation_sets},
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
        base_model=name if source and source.kind == "hub" else None,
        library="transformers",
        card_fields={
            "architecture": model.config.model_type,
            "pretrained": not from_scratch,
            "license": source and source.license,
            "needs_hf_geo": model.config.model_type == WORD_TRANSFORMER,
            "vocabulary": f"{len(tokenizer):,}",
            "measured": layout.perplexity,
            "prompt": prompt,
            "widget": prompt,
            "new_tokens": room_for_tokens(model, len(tokenizer(prompt)["input_ids"])),
        },
        describe_data=lambda: text.description,
        open_processor=partial(AutoTokenizer.from_pretrained, trust_remote_code=trust),
    )


def reopen(sources: Sequence[ModelSource], data_args: DataArguments, options: EvaluationOptions) -> EvaluationSetup:
    """Opens trained language models that share a vocabulary, and a text.

    Raises:
        ValueError: The models or the data do not exist, or do not fit each other.
    """
    text = load_text_data(data_args)
    trust = options.trust_remote_code
    tokenizers = [open_tokenizer(source, trust) for source in sources]
    if any(tokenizer.get_vocab() != tokenizers[0].get_vocab() for tokenizer in tokenizers):
        raise ValueError("The models have different vocabularies, so their predictions cannot be compared.")
    models = [
        build_language_model(source.name, tokenizer, trust_remote_code=trust)
        for source, tokenizer in zip(sources, tokenizers, strict=True)
    ]
    layout = LanguageData(
        text,
        tokenizers[0],
        data_args,
        batch_size=options.batch_size or EVAL_BATCH_SIZE,
        longest=max_positions(*models),
    )
    split = final_split(text.splits)

    def loader(split: str) -> DataLoader:
        return DataLoader(
            layout.evaluation_set(split),
            batch_size=layout.eval_batch_size,
            num_workers=options.num_workers,
            collate_fn=layout.collate,
        )

    return EvaluationSetup(
        models=models,
        dataset=text.name,
        split=split,
        evaluation=loader(split),
        recalibration=None,
        causal=True,
        processor=tokenizers[0],
        validation=loader("eval") if split != "eval" else None,
        view=SampleView(
            fields=("prompt",),
            prepare=partial(encode_prompt, models[0], tokenizers[0]),
            show=None,
            classes=[tokenizers[0].decode([number]) for number in range(len(tokenizers[0]))],
            example=(choose_prompt(layout.tokens(split), tokenizers[0], max_positions(*models)),),
        ),
    )


def choose_prompt(tokens: torch.Tensor, tokenizer: PreTrainedTokenizerBase, longest: int | None = None) -> str:
    """The first words of a text that the tokenizer knows, filling at most half of the model's positions."""
    known = tokens if tokenizer.unk_token_id is None else tokens[tokens != tokenizer.unk_token_id]
    return tokenizer.decode(known[: min(PROMPT_WORDS, (longest or 2 * PROMPT_WORDS) // 2)]).strip()


OPTIONS = {
    *OPTIONS_OF_SPLITS, "text_column", "text_layout", "columns", "eval_columns", "bptt", "block_size",
    "min_frequency", "streaming",
}  # fmt: skip
CAUSAL_LM = Task(
    name="causal-lm",
    hub_name="text-generation",
    metrics=("perplexity",),
    template="language.md.jinja",
    architectures=("ForCausalLM", "LMHeadModel"),
    auto_class="AutoModelForCausalLM",
    models=(WORD_TRANSFORMER,),
    datasets=(DOCS,),
    options=OPTIONS,
    build=build,
    reopen=reopen,
)
