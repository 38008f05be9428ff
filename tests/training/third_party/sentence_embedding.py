"""A script as its author might have published it: sentence-transformers, also with a loss that has weights of its own."""

from dataclasses import dataclass

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss, SoftmaxLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import HfArgumentParser, set_seed

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs", "home"]


@dataclass
class ScriptArguments:
    loss: str = "softmax"


def main():
    parser = HfArgumentParser((ScriptArguments, SentenceTransformerTrainingArguments))
    script_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *WORDS])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    sentences = [" ".join((WORDS * 2)[i % 12 : i % 12 + 4]) for i in range(96)]
    dataset = Dataset.from_dict(
        {"first": sentences[:48], "second": sentences[48:], "label": [i % 12 // 6 for i in range(48)]}
    )
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)])
    loss = CosineSimilarityLoss(model)
    if script_args.loss == "softmax":
        loss = SoftmaxLoss(model, embedding_dimension=16, num_labels=2)
    trainer = SentenceTransformerTrainer(model, training_args, train_dataset=dataset, eval_dataset=dataset, loss=loss)
    result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    print("eval_loss", trainer.evaluate()["eval_loss"])


if __name__ == "__main__":
    main()
