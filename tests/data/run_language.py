"""Trains and evaluates a tiny language model with transformers' Trainer, whole and in accumulated batches.

Leaves in FOLDER/ACCUMULATION_STEPS the losses of the steps, the evaluation and the final weights. FOLDER is the argument;
run alone, or by several processes.
"""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file
from transformers import Trainer, TrainingArguments

from hf_geo.data import LanguageData
from hf_geo.metrics import language_metrics, nll_per_row
from tests.data.language_problems import COLUMNS, LEARNING_RATE, arguments, make_model, make_text


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
    for accumulation_steps in (1, 2):
        main(Path(sys.argv[1], str(accumulation_steps)), accumulation_steps)
