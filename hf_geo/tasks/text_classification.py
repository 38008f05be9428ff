"""Text classification: sentences or pairs of them, by the BiLSTM of ALI-G's paper or any encoder of transformers'."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch.utils.data import DataLoader
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)

from hf_geo.data.columns import match_classes
from hf_geo.data.config import DataArguments
from hf_geo.data.sentences import EncodedSentences, SentenceData, encode_sentences, load_sentence_data
from hf_geo.data.tokenizer import build_sentence_tokenizer, rank_sentence_words
from hf_geo.embedded import GLOSSES
from hf_geo.metrics import score_with_confidence, text_classification_metrics
from hf_geo.models import ModelArguments, max_positions, open_tokenizer
from hf_geo.models.sources import ModelSource, find_model
from hf_geo.models.text_classifiers import BiLstmNliConfig, build_bilstm, open_text_classifier, read_word_vectors

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
from .classifiers import collate_as_model, loss_arguments, same_classes

BILSTM = BiLstmNliConfig.model_type
EVAL_BATCH_SIZE = 64


def build(model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments) -> TrainingSetup:
    """Opens the sentences, builds or opens the tokenizer and the model, and encodes the sentences.

    Raises:
        ValueError: The dataset, the model, its tokenizer or the word vectors do not exist, or do not fit each other.
    """
    from_scratch = model_args.model == BILSTM
    if not from_scratch:
        _refuse_options_of_bilstm(model_args, data_args)
    source = None if from_scratch else find_model(model_args.model)
    trust = model_args.trust_remote_code
    data = load_sentence_data(data_args, seed=args.seed)
    if from_scratch:
        tokenizer, build_model = _prepare_bilstm(data, model_args, data_args)
    else:
        tokenizer = _open_padding_tokenizer(source, trust)
        build_model = partial(open_text_classifier, source.name, tokenizer, data.label_names, trust_remote_code=trust)
    model = build_model()
    _check_sentences(model, data)
    longest = _longest(tokenizer, [model], data, data_args)
    encoded = {name: encode_sentences(split, tokenizer, longest) for name, split in data.splits.items()}
    example = [column[0] for column in data.splits["eval"].texts]
    return TrainingSetup(
        model=model,
        new_model=build_model if from_scratch else None,
        datasets=encoded,
        trainer={
            "compute_metrics": text_classification_metrics,
            "preprocess_logits_for_metrics": score_with_confidence,
            "data_collator": DataCollatorWithPadding(tokenizer),
            "processing_class": tokenizer,
            **loss_arguments(model_args, len(data.label_names), args),
        },
        settings={"remove_unused_columns": False},  # the datasets hold the model's inputs and nothing else
        dataset_name=data.name,
        dataset_id=data.hub_id,
        base_model=source.name if source and source.kind == "hub" else None,
        library="transformers",
        card_fields={
            "architecture": model.config.model_type,
            "pretrained": not from_scratch,
            "license": source and source.license,
            "needs_hf_geo": model.config.model_type == BILSTM,
            "classes": list(data.label_names),
            "example": example,
            "widget": example[0] if len(example) == 1 else None,
        },
        describe_data=lambda: _describe(data, encoded),
        open_processor=partial(AutoTokenizer.from_pretrained, trust_remote_code=trust),
    )


def reopen(sources: Sequence[ModelSource], data_args: DataArguments, options: EvaluationOptions) -> EvaluationSetup:
    """Opens trained classifiers with the same classes and vocabulary, and data whose labels are matched to theirs by name.

    Raises:
        ValueError: The models or the data do not exist, or do not fit each other.
    """
    data = load_sentence_data(data_args, seed=options.seed)
    classes = same_classes(sources)
    labels = match_classes(classes, data.label_names, sources[0].name, data.name)
    trust = options.trust_remote_code
    tokenizers = [_open_padding_tokenizer(source, trust) for source in sources]
    if any(tokenizer.get_vocab() != tokenizers[0].get_vocab() for tokenizer in tokenizers):
        raise ValueError("The models have different vocabularies, so one pass over the data cannot serve them all.")
    models = [
        open_text_classifier(source.name, tokenizer, tuple(classes), trust_remote_code=trust)
        for source, tokenizer in zip(sources, tokenizers, strict=True)
    ]
    for model in models:
        _check_sentences(model, data)
    split = final_split(data.splits)
    longest = _longest(tokenizers[0], models, data, data_args)

    def loader(split: str) -> DataLoader:
        return DataLoader(
            encode_sentences(data.splits[split], tokenizers[0], longest),
            batch_size=options.batch_size or EVAL_BATCH_SIZE,
            num_workers=options.num_workers,
            collate_fn=partial(collate_as_model, DataCollatorWithPadding(tokenizers[0]), labels),
        )

    return EvaluationSetup(
        models=models,
        dataset=data.name,
        split=split,
        evaluation=loader(split),
        recalibration=None,
        causal=False,
        processor=tokenizers[0],
        validation=loader("eval") if split != "eval" else None,
        view=SampleView(
            fields=("text",) if data.sentences == 1 else ("first text", "second text"),
            prepare=partial(
                tokenizers[0], return_tensors="pt", padding=True, truncation=longest is not None, max_length=longest
            ),
            show=lambda batch: tokenizers[0].batch_decode(batch["input_ids"], skip_special_tokens=True),
            classes=classes,
            example=tuple(column[0] for column in data.splits[split].texts),
        ),
    )


def _prepare_bilstm(
    data: SentenceData, model_args: ModelArguments, data_args: DataArguments
) -> tuple[PreTrainedTokenizerBase, Callable[[], PreTrainedModel]]:
    """The tokenizer of the training split's words, and what builds the model for it."""
    lowercase, path = data_args.lowercase, model_args.word_vectors
    words = rank_sentence_words(data.training_texts(), min_frequency=data_args.min_frequency, lowercase=lowercase)
    drop, vectors = False, None
    if path is not None:
        drop, found = model_args.words_without_vector == "drop", read_word_vectors(path, words)
        others = [] if drop else [word for word in words if word not in found]
        fixed = [word for word in words if word in found]
        words, vectors = [*others, *fixed], torch.stack([found[word] for word in fixed])
    tokenizer = build_sentence_tokenizer(words, lowercase=lowercase)
    build_model = partial(
        build_bilstm,
        tokenizer,
        data.label_names,
        sentences=data.sentences,
        vectors=vectors,
        drop_unknown=drop,
        model_args=model_args.parsed_model_args,
    )
    return tokenizer, build_model


def _refuse_options_of_bilstm(model_args: ModelArguments, data_args: DataArguments) -> None:
    """Raises `ValueError` for options that a model with a configuration and a vocabulary of its own cannot use."""
    reason = f"is for {BILSTM!r}: {model_args.model!r} brings its own configuration and vocabulary"
    refuse("model_args", model_args.model_args, None, reason)
    refuse("word_vectors", model_args.word_vectors, None, reason)
    refuse("lowercase", data_args.lowercase, False, reason)
    refuse("min_frequency", data_args.min_frequency, 1, reason)


def _open_padding_tokenizer(source: ModelSource, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    tokenizer = open_tokenizer(source, trust_remote_code)
    if tokenizer.pad_token is None:  # as of GPT-2, which was trained without padding
        if tokenizer.eos_token is None:
            raise ValueError(f"The tokenizer of {source.name!r} has no token to pad with: use a model that has.")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _check_sentences(model: PreTrainedModel, data: SentenceData) -> None:
    expected = getattr(model.config, "sentences", data.sentences)
    if expected != data.sentences:
        kinds = {1: "single texts", 2: "pairs of texts"}
        raise ValueError(
            f"The model classifies {kinds[expected]}, and {data.name} has {kinds[data.sentences]}: choose the columns with "
            "--text_column and --text_pair_column."
        )


def _longest(
    tokenizer: PreTrainedTokenizerBase, models: Sequence[PreTrainedModel], data: SentenceData, args: DataArguments
) -> int | None:
    """Tokens of the longest row that the models take; None if there is no limit.

    Raises:
        ValueError: `--max_length` leaves no room for a word, or is more than the model takes.
    """
    limits = (tokenizer.model_max_length, max_positions(*models))
    own = min((limit for limit in limits if limit and limit < 10**9), default=None)
    special = tokenizer.num_special_tokens_to_add(pair=data.sentences == 2)
    if args.max_length is None:
        return own
    if own is not None and args.max_length > own:
        raise ValueError(f"--max_length {args.max_length} is more than the {own} tokens the model takes: leave it out.")
    if args.max_length < special + data.sentences:
        raise ValueError(
            f"--max_length {args.max_length} leaves no room for words beside {special} special tokens: use a larger one."
        )
    return args.max_length


def _describe(data: SentenceData, encoded: dict[str, EncodedSentences]) -> str:
    notes = [
        f"{name}: {rows.truncated:,} rows were too long, and cut." for name, rows in encoded.items() if rows.truncated
    ]
    return " ".join([data.origin, *notes])


OPTIONS = {
    *OPTIONS_OF_SPLITS, "text_column", "text_pair_column", "label_column", "max_length", "lowercase", "min_frequency",
    "label_noise", "label_noise_seed", "loss", "top_k", "loss_temperature", "word_vectors", "words_without_vector",
}  # fmt: skip
TEXT_CLASSIFICATION = Task(
    name="text-classification",
    hub_name="text-classification",
    metrics=("accuracy", "macro_f1", "ece"),
    template="text.md.jinja",
    architectures=("ForSequenceClassification",),
    auto_class="AutoModelForSequenceClassification",
    models=(BILSTM,),
    datasets=(GLOSSES,),
    options=OPTIONS,
    build=build,
    reopen=reopen,
)
