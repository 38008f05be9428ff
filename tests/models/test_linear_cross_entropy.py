"""The chunked loss equals PyTorch's cross-entropy, and never holds all logits."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hf_geo.models import linear_cross_entropy as module
from hf_geo.models.linear_cross_entropy import linear_cross_entropy

ROWS, WIDTH, VOCABULARY = 13, 5, 11


def inputs(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
    shapes = ((ROWS, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))
    values = [(scale * torch.randn(shape, dtype=dtype)).requires_grad_() for shape in shapes]
    targets = torch.randint(VOCABULARY, (ROWS,))
    targets[[0, 7]] = -100
    return *values, targets


@pytest.fixture(params=[1, 4, 1000], ids=lambda rows: f"{rows}-rows-a-chunk")
def chunks(request, monkeypatch) -> int:
    monkeypatch.setitem(module.CHUNK_ELEMENTS, "cpu", request.param * VOCABULARY)
    return request.param


@pytest.mark.parametrize(
    ("divisor", "scale"), [(None, 1.0), (5, 200.0), (torch.tensor(5), 1.0)], ids=["mean", "saturated", "tensor"]
)
def test_equals_pytorch(chunks: int, scale: float, divisor: int | torch.Tensor | None) -> None:
    *values, targets = inputs(scale=scale)
    hidden, weight, bias = values
    expected = F.cross_entropy(F.linear(hidden, weight, bias), targets, reduction="mean" if divisor is None else "sum")
    expected = expected / (1 if divisor is None else divisor)
    found = linear_cross_entropy(*values, targets, divisor)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(*(torch.autograd.grad(3 * loss, values) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_equals_pytorch_at_the_size_of_wikitext2(device: str) -> None:
    shapes = ((150, 200), (33_278, 200), (33_278,))
    values = [torch.empty(shape, device=device).uniform_(-0.5, 0.5).requires_grad_() for shape in shapes]
    targets = torch.randint(33_278, (150,), device=device)
    losses = linear_cross_entropy(*values, targets), F.cross_entropy(F.linear(*values), targets)
    torch.testing.assert_close(*losses)
    for ours, theirs in zip(*(torch.autograd.grad(loss, values) for loss in losses), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("dtype", "mixed"), [(torch.bfloat16, True), (torch.float16, False)], ids=["autocast", "pure"])
def test_low_precision_is_as_close_as_pytorchs(chunks: int, dtype: torch.dtype, mixed: bool) -> None:
    *values, targets = inputs(torch.float32)
    exact = torch.autograd.grad(F.cross_entropy(F.linear(*values), targets), values)
    rough = [v.detach().to(torch.float32 if mixed else dtype).requires_grad_() for v in values]
    with torch.autocast("cpu", dtype, enabled=mixed):
        found = linear_cross_entropy(*rough, targets)
    assert found.dtype == torch.float32
    for ours, value, theirs in zip(torch.autograd.grad(found, rough), rough, exact, strict=True):
        assert ours.dtype == value.dtype
        torch.testing.assert_close(ours.float(), theirs, rtol=0.05, atol=0.05)


def test_rows_without_a_target_have_no_gradient_and_no_influence() -> None:
    *values, targets = inputs()
    loss = linear_cross_entropy(*values, targets)
    gradients = torch.autograd.grad(loss, values)
    assert not gradients[0][[0, 7]].any() and gradients[0][1:7].all()
    counted = targets != -100
    alone = linear_cross_entropy(values[0][counted], *values[1:], targets[counted])
    torch.testing.assert_close(loss, alone)
    for nothing in (
        linear_cross_entropy(*values, torch.full_like(targets, -100), 1),
        linear_cross_entropy(values[0][:0], *values[1:], targets[:0], 1),
    ):
        assert nothing == 0 and not any(g.any() for g in torch.autograd.grad(nothing, values))
    assert linear_cross_entropy(*values, torch.full_like(targets, -100)).isnan()  # as PyTorch's mean over nothing


def test_a_second_derivative_is_refused() -> None:
    *values, targets = inputs()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(linear_cross_entropy(*values, targets), values, create_graph=True)


class Largest(TorchDispatchMode):
    """Records the largest tensor any operation makes."""

    numel = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for value in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.numel())
        return made


def test_only_a_chunk_of_logits_is_ever_held(monkeypatch) -> None:
    rows, width, vocabulary, chunk = 64, 3, 100, 8
    monkeypatch.setitem(module.CHUNK_ELEMENTS, "cpu", chunk * vocabulary)
    hidden, weight, bias = (
        torch.randn(s, requires_grad=True) for s in ((rows, width), (vocabulary, width), (vocabulary,))
    )
    targets = torch.randint(vocabulary, (rows,))
    with Largest() as ours:
        linear_cross_entropy(hidden, weight, bias, targets).backward()
    with Largest() as theirs:
        F.cross_entropy(F.linear(hidden, weight, bias), targets).backward()
    assert ours.numel == chunk * vocabulary and theirs.numel == rows * vocabulary
