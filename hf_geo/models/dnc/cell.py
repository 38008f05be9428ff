"""One step of a Differentiable Neural Computer: an LSTM that controls the heads of an external memory."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .addressing import (
    allocate,
    content_weighting,
    next_precedence,
    oneplus,
    read_weighting,
    retention,
    temporal_links,
    usage,
    write,
    write_weighting,
)
from .configuration_dnc import DncConfig


class DncState(NamedTuple):
    """All that a network remembers between two steps; B sequences, N locations, R read and H write heads.

    Args:
        hidden: The LSTM's output, (B, hidden_size).
        cell: The LSTM's cell, (B, hidden_size).
        memory: M, (B, N, word_size).
        usage: u, (B, N).
        precedence: p, (B, H, N).
        links: L, (B, H, N, N).
        write_weights: (B, H, N).
        read_weights: (B, R, N).
        reads: What was read, (B, R, word_size).
    """

    hidden: Tensor
    cell: Tensor
    memory: Tensor
    usage: Tensor
    precedence: Tensor
    links: Tensor
    write_weights: Tensor
    read_weights: Tensor
    reads: Tensor


class DncCell(nn.Module):
    """Reads one input, writes to the memory, and reads from it.

    Args:
        config: The sizes.
    """

    def __init__(self, config: DncConfig) -> None:
        super().__init__()
        self.config = config
        reads, writes, word = config.num_read_heads, config.num_write_heads, config.word_size
        # Keys of both kinds; words to write; erase vectors, free, allocation and write gates; strengths; read modes.
        self.sizes = (
            (reads + writes) * word,
            writes * word,
            writes * word + reads + 2 * writes,
            reads + writes,
            reads * (2 * writes + 1),
        )
        self.gates = nn.Linear(config.input_size + reads * word + config.hidden_size, 4 * config.hidden_size)
        self.interface = nn.Linear(config.hidden_size, sum(self.sizes))

    def initial_state(self, batch_size: int) -> DncState:
        """The state before the first step: nothing written, nothing read, in single precision at least."""
        c = self.config
        locations = c.memory_size
        shapes = DncState(
            hidden=(c.hidden_size,),
            cell=(c.hidden_size,),
            memory=(locations, c.word_size),
            usage=(locations,),
            precedence=(c.num_write_heads, locations),
            links=(c.num_write_heads, locations, locations),
            write_weights=(c.num_write_heads, locations),
            read_weights=(c.num_read_heads, locations),
            reads=(c.num_read_heads, c.word_size),
        )
        weight = self.gates.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return DncState(*(torch.zeros(batch_size, *shape, device=weight.device, dtype=dtype) for shape in shapes))

    def forward(self, x: Tensor, state: DncState) -> DncState:
        """The state after reading `x`, (B, input_size)."""
        hidden, cell = self._control(x, state)
        keys, words, gates, strengths, modes = self._read_interface(hidden)
        erase, free, allocation_gates, write_gates = gates

        retained = retention(free, state.read_weights)
        used = usage(state.usage, state.write_weights, retained)
        reads = self.config.num_read_heads
        content = content_weighting(state.memory, keys[:, reads:], strengths[:, reads:])
        allocated = allocate(used, write_gates * allocation_gates)
        write_weights = write_weighting(content, allocated, allocation_gates, write_gates)
        memory = write(state.memory, write_weights, erase, words)

        links = temporal_links(state.links, state.precedence, write_weights)
        content = content_weighting(memory, keys[:, :reads], strengths[:, :reads])
        read_weights = read_weighting(links, state.read_weights, content, modes)
        return DncState(
            hidden=hidden,
            cell=cell,
            memory=memory,
            usage=used,
            precedence=next_precedence(state.precedence, write_weights),
            links=links,
            write_weights=write_weights,
            read_weights=read_weights,
            reads=read_weights @ memory,
        )

    def _control(self, x: Tensor, state: DncState) -> tuple[Tensor, Tensor]:
        """The LSTM's output and cell."""
        seen = torch.cat((x, state.reads.flatten(1), state.hidden), dim=-1)
        gates = self.gates(seen.to(self.gates.weight.dtype)).to(state.cell.dtype)
        input_gate, forget_gate, output_gate = gates[:, : 3 * self.config.hidden_size].sigmoid().chunk(3, dim=-1)
        cell = forget_gate * state.cell + input_gate * gates[:, 3 * self.config.hidden_size :].tanh()
        return output_gate * cell.tanh(), cell

    def _read_interface(self, hidden: Tensor) -> tuple[Tensor, Tensor, list[Tensor], Tensor, Tensor]:
        """The interface vector's parts, each in its range."""
        c = self.config
        vector = self.interface(hidden.to(self.interface.weight.dtype)).to(hidden.dtype)
        keys, words, gates, strengths, modes = vector.split(self.sizes, dim=-1)
        heads = c.num_write_heads
        erase, *rest = gates.sigmoid().split((heads * c.word_size, c.num_read_heads, heads, heads), dim=-1)
        return (
            keys.unflatten(-1, (-1, c.word_size)),
            words.unflatten(-1, (heads, c.word_size)),
            [erase.unflatten(-1, (heads, c.word_size)), *rest],
            oneplus(strengths),
            modes.unflatten(-1, (c.num_read_heads, -1)).softmax(-1),
        )
