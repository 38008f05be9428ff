"""Settings of the Differentiable Neural Computer."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class DncConfig(PreTrainedConfig):
    """The Differentiable Neural Computer; its defaults are the network of ALI-G's repeat-copy experiment.

    Args:
        input_size: Numbers a step reads.
        output_size: Bits a step predicts.
        hidden_size: Units of the LSTM that controls the memory.
        memory_size: Locations of the memory (the paper's N), at least one for each write head.
        word_size: Numbers a location holds (W).
        num_read_heads: Locations read at each step (R).
        num_write_heads: Locations written at each step; the paper has one.
        clip_value: Largest size of a logit.

    Raises:
        ValueError: A size below 1, a memory of fewer locations than write heads, or a `clip_value` that is not positive.
    """

    model_type = "dnc"
    keys_to_ignore_at_inference = ["state"]  # noqa: RUF012

    input_size: int = 6
    output_size: int = 5
    hidden_size: int = 64
    memory_size: int = 16
    word_size: int = 16
    num_read_heads: int = 4
    num_write_heads: int = 1
    clip_value: float | int = 20.0

    def __post_init__(self, **kwargs):
        for name in (name for name in DncConfig.__annotations__ if name != "clip_value"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}.")
        if self.memory_size < self.num_write_heads:
            raise ValueError(
                f"memory_size={self.memory_size} is too small for num_write_heads={self.num_write_heads}, as each head needs a "
                f"location of its own: give memory_size={self.num_write_heads} or more."
            )
        if not self.clip_value > 0:
            raise ValueError(f"clip_value is above 0, not {self.clip_value}.")
        super().__post_init__(**kwargs)
