"""A class-conditional generative adversarial network, registered with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel

from .config import ResNetGanConfig
from .model import ResNetGanForImageGeneration

AutoConfig.register(ResNetGanConfig.model_type, ResNetGanConfig)
AutoModel.register(ResNetGanConfig, ResNetGanForImageGeneration)
# `save_pretrained` then writes the code beside the weights, for those who open them without this package.
ResNetGanConfig.register_for_auto_class()
ResNetGanForImageGeneration.register_for_auto_class("AutoModel")

__all__ = ["ResNetGanConfig", "ResNetGanForImageGeneration"]
