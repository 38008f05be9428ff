"""How the heads of a Differentiable Neural Computer find locations of the memory.

The equations of "Hybrid computing using a neural network with dynamic external memory" (Graves et al. 2016, Nature 538,
methods) as functions without state. Letters are the paper's. Shapes: B sequences, N locations of W numbers, R read heads,
H write heads; the paper has H = 1.

Differs from the paper: lengths in the cosine, and usages in the allocation, are kept above a small number, so that an empty
memory has gradients.
"""

import operator
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-6


def oneplus(x: Tensor) -> Tensor:
    """1 + log(1 + exp x), which is above 1."""
    return 1 + F.softplus(x)


def content_weighting(memory: Tensor, keys: Tensor, strengths: Tensor) -> Tensor:
    """C(M, k, beta): locations by the cosine of their content with a key, sharpened by its strength.

    Args:
        memory: (B, N, W).
        keys: (B, heads, W).
        strengths: (B, heads), at least 1.

    Returns:
        (B, heads, N), each head's sum is 1.
    """
    lengths = (memory.square().sum(-1) + EPSILON).rsqrt()
    sharpness = strengths * (keys.square().sum(-1) + EPSILON).rsqrt()
    return (keys @ memory.mT * lengths[:, None] * sharpness[..., None]).softmax(-1)


def retention(free_gates: Tensor, read_weights: Tensor) -> Tensor:
    """psi: how much of each location is kept, given the gates (B, R) that free what was read with (B, R, N); (B, N)."""
    # psi = prod_i (1 - f^i w^{r,i})
    return _product(1 - free_gates[..., None] * read_weights)


def usage(previous: Tensor, write_weights: Tensor, retained: Tensor) -> Tensor:
    """u: how much each location is in use, in [0, 1].

    Args:
        previous: The usage before, (B, N).
        write_weights: Of the step before, (B, H, N).
        retained: `retention`, (B, N).

    Returns:
        (B, N)
    """
    # u <- (u + w - u w) psi, which is (1 - (1 - u)(1 - w)) psi
    return (1 - (1 - previous) * _product(1 - write_weights)) * retained


def allocation_weighting(used: Tensor) -> Tensor:
    """a: the least used location, as far as it is free, then the next one for what is left.

    Args:
        used: (B, N) in [0, 1].

    Returns:
        (B, N) in [0, 1] with a sum of at most 1.
    """
    ascending, free_list = (EPSILON + (1 - EPSILON) * used).sort(dim=-1, stable=True)
    # a[phi_j] = (1 - u[phi_j]) prod_{i < j} u[phi_i]; by logarithms, as the gradient of `cumprod` waits for the device
    logs = ascending.log()
    weights = (1 - ascending) * (logs.cumsum(-1) - logs).exp()
    return torch.zeros_like(weights).scatter(-1, free_list, weights)


def allocate(used: Tensor, gates: Tensor) -> Tensor:
    """The allocation of each write head; a head counts what the heads before it take as used.

    Args:
        used: (B, N) in [0, 1].
        gates: The share of each head's writing that goes to allocated locations, (B, H).

    Returns:
        (B, H, N)
    """
    weightings = [allocation_weighting(used)]
    for gate in gates.unbind(1)[:-1]:
        used = used + (1 - used) * gate[:, None] * weightings[-1]
        weightings.append(allocation_weighting(used))
    return torch.stack(weightings, dim=1)


def write_weighting(content: Tensor, allocated: Tensor, allocation_gates: Tensor, write_gates: Tensor) -> Tensor:
    """w^w from the content and the allocation weightings (B, H, N) and the gates (B, H); (B, H, N), sums at most 1."""
    # w = g^w (g^a a + (1 - g^a) c)
    return write_gates[..., None] * torch.lerp(content, allocated, allocation_gates[..., None])


def write(memory: Tensor, weights: Tensor, erase: Tensor, words: Tensor) -> Tensor:
    """The memory (B, N, W) after erasing by (B, H, W) in [0, 1], then adding (B, H, W), where weights (B, H, N) say."""
    # M <- M (1 - w e^T) + w v^T
    return memory * _product(1 - weights[..., None] * erase[:, :, None]) + weights.mT @ words


def temporal_links(links: Tensor, precedence: Tensor, write_weights: Tensor) -> Tensor:
    """L: how much location i was written right after location j.

    Args:
        links: Of the step before, (B, H, N, N).
        precedence: Of the step before, (B, H, N).
        write_weights: Of this step, (B, H, N).

    Returns:
        (B, H, N, N) with a zero diagonal; rows and columns have sums of at most 1.
    """
    # L[i, j] <- (1 - w[i] - w[j]) L[i, j] + w[i] p[j], L[i, i] = 0
    later, earlier = write_weights[..., None], write_weights[..., None, :]
    links = (1 - later - earlier) * links + later * precedence[..., None, :]
    return links.masked_fill(torch.eye(links.shape[-1], dtype=torch.bool, device=links.device), 0)


def next_precedence(precedence: Tensor, write_weights: Tensor) -> Tensor:
    """p: how much each location was the last one written, (B, H, N)."""
    # p <- (1 - sum_i w[i]) p + w
    return (1 - write_weights.sum(-1, keepdim=True)) * precedence + write_weights


def read_weighting(links: Tensor, previous: Tensor, content: Tensor, modes: Tensor) -> Tensor:
    """w^r: each read head goes backwards, by content or forwards, as its modes mix them.

    Args:
        links: (B, H, N, N).
        previous: Read weights of the step before, (B, R, N).
        content: (B, R, N).
        modes: (B, R, 2 H + 1) with sums of 1: backwards by each write head's links, by content, forwards by each.

    Returns:
        (B, R, N), sums at most 1.
    """
    # f = L w^r, b = L^T w^r; w^r <- pi_1 b + pi_2 c + pi_3 f
    forward, backward = previous[:, None] @ links.mT, previous[:, None] @ links
    ways = torch.cat((backward, content[:, None], forward), dim=1)
    return (modes.mT[..., None] * ways).sum(1)


def _product(factors: Tensor) -> Tensor:
    """The product over heads (axis 1); the gradient of `torch.prod` would wait for the device."""
    return reduce(operator.mul, factors.unbind(1))
