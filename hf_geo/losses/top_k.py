"""Losses that ask for the right class among the best k: the smooth top-k loss and the truncated top-k entropy."""

import torch
from torch import Tensor
from torch.nn import functional as F


def check_top_k(k: int, num_classes: int) -> None:
    """Raises `ValueError` unless the best `k` of `num_classes` say anything."""
    if not 1 <= k < num_classes:
        raise ValueError(
            f"A top-{k} loss needs more than {k} classes, and k of at least 1, but there are {num_classes} classes: "
            "the right one of so few is always among the best k."
        )


def smooth_top_k_loss(scores: Tensor, labels: Tensor, k: int = 5, temperature: float = 1.0) -> Tensor:
    """The smooth top-k loss of Berrada et al. 2018, one value a sample.

    With S the sets of k classes, the right class y and the mean score s(A) of a set A,

        t log sum_{A in S} exp((s(A) + [y not in A]) / t) - t log sum_{A in S: y in A} exp(s(A) / t)

    a smooth bound on the top-k hinge loss, which it becomes as the temperature t goes to 0. The sums are elementary
    symmetric polynomials of exp(score / (k t)), found by multiplying polynomials in pairs, and in logarithms throughout,
    so that nothing overflows and every gradient is a quotient of sums. That costs O(k^2 n) for n classes.

    Args:
        scores: Of any floating dtype, shape (batch, classes).
        labels: The right classes, shape (batch,).
        k: How many of the best classes may hold the right one.
        temperature: t.

    Returns:
        Shape (batch,), float32 at least.

    Raises:
        ValueError: No more than k classes, k below 1, or a temperature that is not positive.

    Paper: Berrada, Zisserman, Kumar: Smooth Loss Functions for Deep Top-k Classification. ICLR 2018, arXiv 1802.07595.

    Differs from the paper's algorithm: the gradient is automatic differentiation's, in logarithms, where the paper finds
    it by a recursion of its own that has to be guarded against cancellation.
    """
    check_top_k(k, scores.shape[-1])
    if not temperature > 0:
        raise ValueError(f"The temperature of a smooth loss must be positive, not {temperature}.")
    right, others = _split(scores, labels)
    with_right, without = _log_symmetric(others / (k * temperature), k)[..., k - 1 :].unbind(-1)
    gap = without + 1 / temperature - with_right - right / (k * temperature)
    return temperature * -F.logsigmoid(-gap)


def truncated_top_k_loss(scores: Tensor, labels: Tensor, k: int = 5) -> Tensor:
    """The truncated top-k entropy of Lapin et al. 2016, one value a sample.

    The cross-entropy without the k - 1 highest scores of wrong classes: near 0 wherever the right class is clearly among
    the best k, so that a network can reach 0 on data where it cannot name the one right class.

    Args:
        scores: Of any floating dtype, shape (batch, classes).
        labels: The right classes, shape (batch,).
        k: How many of the best classes may hold the right one; with 1 it is the cross-entropy.

    Returns:
        Shape (batch,), float32 at least.

    Raises:
        ValueError: No more than k classes, or k below 1.

    Paper: Lapin, Hein, Schiele: Loss Functions for Top-k Error: Analysis and Insights. CVPR 2016, arXiv 1512.00486.

    Differs from what ALI-G's authors ran: they left out the k highest scores of all, one wrong class more where the right
    one is not among them, and bounded the exponents at 80.
    """
    check_top_k(k, scores.shape[-1])
    right, others = _split(scores, labels)
    kept = others.topk(others.shape[-1] - k + 1, dim=-1, largest=False, sorted=False).values
    return -F.logsigmoid(right - kept.logsumexp(-1))


def _split(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of the right classes (batch,) and of all others (batch, classes - 1), in float32 at least."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    right = F.one_hot(labels, scores.shape[-1]).bool()
    return scores[right], scores[~right].view(len(scores), -1)


def _log_symmetric(x: Tensor, k: int) -> Tensor:
    """Logarithms of the elementary symmetric polynomials of degrees 0 to k of exp(x), over the last axis.

    They are the coefficients of the product of all (1 + exp(x_i) z). No coefficient is ever zero, so that no logarithm
    is infinite: an odd factor is set aside instead of paired with 1.

    Args:
        x: Shape (..., n) with n >= k.

    Returns:
        Shape (..., k + 1).
    """
    factors = torch.stack((torch.zeros_like(x), x), dim=-1)
    aside = None
    while factors.shape[-2] > 1:
        if factors.shape[-2] % 2:
            aside = factors[..., -1, :] if aside is None else _log_product(factors[..., -1, :], aside, k)
        even = factors.shape[-2] // 2 * 2
        factors = _log_product(factors[..., 0:even:2, :], factors[..., 1:even:2, :], k)
    factors = factors[..., 0, :]
    return factors if aside is None else _log_product(factors, aside, k)


def _log_product(a: Tensor, b: Tensor, k: int) -> Tensor:
    """Logarithms of the first k + 1 coefficients of a product of polynomials, from those of the factors (last axis)."""
    pairs = a[..., :, None] + b.flip(-1)[..., None, :]  # terms of one degree lie on a diagonal
    last = b.shape[-1] - 1
    degree = min(k, a.shape[-1] - 1 + last)
    return torch.stack([pairs.diagonal(last - d, -2, -1).logsumexp(-1) for d in range(degree + 1)], dim=-1)
