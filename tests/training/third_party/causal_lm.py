"""A script as its author might have published it: a causal language model with transformers' Trainer."""

import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, HfArgumentParser, Trainer, TrainingArguments


def main():
    (training_args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
    torch.manual_seed(training_args.seed)
    ids = (torch.arange(12) + torch.arange(48)[:, None]).remainder(31).tolist()
    dataset = Dataset.from_dict({"input_ids": ids, "labels": ids, "text": ["unused"] * len(ids)})
    config = GPT2Config(vocab_size=31, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    trainer = Trainer(GPT2LMHeadModel(config), training_args, train_dataset=dataset, eval_dataset=dataset)
    result = trainer.train()
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    print("eval_loss", trainer.evaluate()["eval_loss"])


if __name__ == "__main__":
    main()
