"""Text classifiers: the BiLSTM of ALI-G's SNLI experiment, its word vectors, and any classifier of transformers'."""

from .bilstm_nli import BiLstmNliForSequenceClassification
from .bilstm_nli_config import BiLstmNliConfig
from .build import build_bilstm, open_text_classifier
from .word_vectors import read_word_vectors

__all__ = [
    "BiLstmNliConfig",
    "BiLstmNliForSequenceClassification",
    "build_bilstm",
    "open_text_classifier",
    "read_word_vectors",
]
