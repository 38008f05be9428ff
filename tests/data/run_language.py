"""Trains and evaluates a tiny language model with transformers' Trainer, whole and in accumulated batches.

Leaves in FOLDER the losses of the steps, the evaluation and the final weights; the arguments are FOLDER and the number of
accumulation steps. Run alone, or by several processes.
"""

import json
import sys
from pathlib import Path

import datasets
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Trainer, TrainingArguments

from hf_geo.data import DataArguments, LanguageData, TextData
from hf_geo.metrics import language_metrics, nll_per_row
from hf_geo.models import build_language_model

COLUMNS, EVAL_COLUMNS, BPTT, LEARNING_RATE = 4, 3, 7, 0.5


def make_text(train: int = 60, evaluation: int = 25) -> TextData:
    """Lines of two to nine words out of twelve."""
    generator = np.random.default_rng(0)
    words = np.array([f"w{i}" for i in range(12)])

    def lines(count: int) -> datasets.Dataset:
        rows = [" ".join(generator.choice(words, size=generator.integers(2, 10))) for _ in range(count)]
        return datasets.Dataset.from_dict({"text": rows})

    return TextData("lines", None, {"train": lines(train), "eval": lines(evaluation)}, "made for a test")


def arguments(**settings) -> DataArguments:
    return DataArguments(**{"eval_columns": EVAL_COLUMNS, "bptt": BPTT} | settings)


def make_model(tokenizer):
    torch.manual_seed(0)
    args = {"d_model": 8, "d_hid": 8, "nlayers": 1, "nhead": 2, "dropout": 0.0}
    return build_language_model("word_transformer", tokenizer, model_args=args).double()


def main(folder: Path, accumulation_steps: int) -> None:
    data = make_text()
    tokenizer = data.word_tokenizer()
    model = make_model(tokenizer)
    args = TrainingArguments(
        output_dir=str(folder / "runs"),
        optim="sgd",
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        num_train_epochs=1,
        gradient_accumulation_steps=accumulation_steps,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    language = LanguageData(
        data, tokenizer, arguments(columns=COLUMNS), processes=args.world_size, accumulation_steps=accumulation_steps
    )
    args.per_device_train_batch_size = language.batch_size
    args.per_device_eval_batch_size = language.eval_batch_size
    args.train_sampling_strategy = language.sampling
    trainer = Trainer(
        model,
        args,
        data_collator=language.collate,
        train_dataset=language.training_set(),
        eval_dataset=language.evaluation_set("eval"),
        compute_metrics=language_metrics,
        preprocess_logits_for_metrics=nll_per_row,
    )
    trainer.train()
    results = trainer.evaluate()
    if trainer.is_world_process_zero():
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        folder.mkdir(exist_ok=True)
        report = {"losses": losses, "batch_size": language.batch_size, **results}
        (folder / "report.json").write_text(json.dumps(report))
        save_file(
            {name: p.detach().contiguous() for name, p in model.named_parameters()}, folder / "weights.safetensors"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
