"""A script as its author might have published it: sequence to sequence arguments, a text classifier, a collator."""

import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    HfArgumentParser,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    default_data_collator,
)


def main():
    (training_args,) = HfArgumentParser(Seq2SeqTrainingArguments).parse_args_into_dataclasses()
    torch.manual_seed(training_args.seed)
    ids = torch.randint(1, 29, (48, 10))
    dataset = Dataset.from_dict({"input_ids": ids.tolist(), "label": (ids[:, 0] > 14).long().tolist()})
    config = BertConfig(
        vocab_size=29, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=2
    )
    trainer = Seq2SeqTrainer(
        BertForSequenceClassification(config),
        training_args,
        train_dataset=dataset,
        eval_dataset=dataset,
        data_collator=default_data_collator,
    )
    result = trainer.train()
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    print("eval_loss", trainer.evaluate()["eval_loss"])


if __name__ == "__main__":
    main()
