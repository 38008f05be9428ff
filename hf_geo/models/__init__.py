"""Models: importing this package adds its architectures to timm's registry and to transformers' Auto classes."""

from . import cifar as cifar
from . import mlp_depth as mlp_depth
from . import text_classifiers as text_classifiers
from .build import build_image_classifier, input_config
from .config import ModelArguments, parse_model_args
from .dnc import DncConfig, DncForSequenceCopy, build_copy_model
from .gan import ResNetGanConfig, ResNetGanForImageGeneration
from .image_sizes import check_images
from .language import (
    build_language_model,
    check_vocabulary,
    encode_prompt,
    generate_text,
    max_positions,
    open_tokenizer,
    room_for_tokens,
)
from .word_transformer import WordTransformerForCausalLM
from .word_transformer_config import WordTransformerConfig

__all__ = [
    "DncConfig",
    "DncForSequenceCopy",
    "ModelArguments",
    "ResNetGanConfig",
    "ResNetGanForImageGeneration",
    "WordTransformerConfig",
    "WordTransformerForCausalLM",
    "build_copy_model",
    "build_image_classifier",
    "build_language_model",
    "check_images",
    "check_vocabulary",
    "encode_prompt",
    "generate_text",
    "input_config",
    "max_positions",
    "open_tokenizer",
    "parse_model_args",
    "room_for_tokens",
]
