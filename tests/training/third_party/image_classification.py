"""A script as its author might have published it: image classification with transformers' Trainer, no word of hf_geo."""

from dataclasses import dataclass

import torch
from transformers import HfArgumentParser, ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments


@dataclass
class DataArguments:
    num_samples: int = 48


def main():
    data_args, training_args = HfArgumentParser((DataArguments, TrainingArguments)).parse_args_into_dataclasses()
    torch.manual_seed(training_args.seed)
    images = torch.randn(data_args.num_samples, 3, 16, 16)
    labels = (images.mean((1, 2, 3)) > 0).long()
    dataset = [{"pixel_values": x, "labels": y} for x, y in zip(images, labels, strict=True)]
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=2)
    trainer = Trainer(ResNetForImageClassification(config), training_args, train_dataset=dataset, eval_dataset=dataset)
    result = trainer.train()
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    print("eval_loss", trainer.evaluate()["eval_loss"])


if __name__ == "__main__":
    main()
