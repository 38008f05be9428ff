"""The Differentiable Neural Computer as a model of transformers that predicts bits."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from .cell import DncCell, DncState
from .configuration_dnc import DncConfig

IGNORED = -100


@dataclass
class DncOutput(ModelOutput):
    """What a network predicts.

    Args:
        loss: The mean over sequences of the cross-entropy summed over their steps and bits, in nats; None without labels.
        logits: (batch, length, output_size), each that of its bit being 1.
        state: What the network remembers after the last step.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    state: DncState | None = None


class DncForSequenceCopy(PreTrainedModel):
    """The Differentiable Neural Computer of Graves et al. 2016 (Nature 538): an LSTM with a memory that it writes and reads.

    A step's output is a linear map of the LSTM's output and of what was read, clipped to `clip_value`. With its default
    sizes it has the 43,980 parameters of ALI-G's experiment (Berrada et al. 2020, arXiv 1906.05661). All linear maps start
    as `torch.nn.Linear` does.

    Differs from the paper: one LSTM layer, biases on all linear maps, and the number of write heads is a setting.
    """

    config: DncConfig
    config_class = DncConfig
    main_input_name = "inputs"
    accepts_loss_kwargs = False  # the loss is a mean over sequences, whatever number of items a Trainer counts
    _no_split_modules = ["DncCell"]  # noqa: RUF012

    def __init__(self, config: DncConfig) -> None:
        super().__init__(config)
        self.cell = DncCell(config)
        self.output = nn.Linear(config.hidden_size + config.num_read_heads * config.word_size, config.output_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            module.reset_parameters()

    def forward(
        self,
        inputs: Tensor,
        labels: Tensor | None = None,
        state: DncState | None = None,
        return_dict: bool | None = None,
    ) -> DncOutput | tuple:
        """Reads sequences step by step.

        Args:
            inputs: (batch, length, input_size).
            labels: Bits, (batch, length, output_size), -100 where there is nothing to predict.
            state: What the network remembers of the steps before; nothing by default. A long sequence can be read in
                pieces, each begun with the state that the one before returned.
            return_dict: False returns a tuple; default: the configuration's.
        """
        state = self.cell.initial_state(len(inputs)) if state is None else DncState(*state)
        seen = []
        for x in inputs.unbind(1):
            state = self.cell(x, state)
            seen.append(torch.cat((state.hidden, state.reads.flatten(1)), dim=-1))
        features = torch.stack(seen, dim=1).to(self.output.weight.dtype)
        logits = self.output(features).clamp(-self.config.clip_value, self.config.clip_value)
        loss = None if labels is None else copy_loss(logits, labels).mean()
        output = DncOutput(loss=loss, logits=logits, state=state)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()


def copy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of each sequence's bits, summed over its steps, in nats: (batch,).

    Args:
        logits: (batch, length, bits).
        labels: (batch, length, bits), -100 where there is nothing to predict.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.binary_cross_entropy_with_logits(wide, labels.clamp(min=0).to(wide), reduction="none")
    return (losses * (labels != IGNORED)).sum((1, 2))
