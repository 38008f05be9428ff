"""Data for text classification: sentences or pairs of sentences with labels, and their encoded form."""

from .data import SentenceData, Sentences, load_sentence_data
from .encoded import EncodedSentences, encode_sentences

__all__ = ["EncodedSentences", "SentenceData", "Sentences", "encode_sentences", "load_sentence_data"]
