"""Triton kernels that add the gradient of `omega / 2 * |Y Y^T - I|^2` to those of all weights of a table, Y being unit rows."""

import triton
import triton.language as tl

from .great_circles import TINY
from .programs import RAW, ROWS, SIZE, G, W, X, _cast, _pointer, _size

_TINY = tl.constexpr(TINY)


@triton.jit
def compare_rows(
    table, tiles, omega: tl.float64, DTYPE: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr
):
    """Writes a tile of 2 omega (Y Y^T - I) / |x_j|, whose product with the rows x_j is the gradient of the regularizer."""
    tensor, first_i, first_j = _tile(tiles)
    n, rows = _size(table, tensor, SIZE), _size(table, tensor, ROWS)
    i, j = first_i + tl.arange(0, TILE), first_j + tl.arange(0, TILE)
    x = _pointer(table, tensor, X, DTYPE)
    product, square_i, square_j = tl.zeros((TILE, TILE), WIDE), tl.zeros((TILE,), WIDE), tl.zeros((TILE,), WIDE)
    for start in range(0, n, DEPTH):
        at = start + tl.arange(0, DEPTH)
        x_i = tl.load(x + i[:, None] * n + at[None, :], (i < rows)[:, None] & (at < n)[None, :], other=0).to(WIDE)
        x_j = tl.load(x + j[:, None] * n + at[None, :], (j < rows)[:, None] & (at < n)[None, :], other=0).to(WIDE)
        product = tl.dot(x_i, tl.trans(x_j), product, input_precision="ieee", out_dtype=WIDE)
        square_i += tl.sum(x_i * x_i, 1)
        square_j += tl.sum(x_j * x_j, 1)
    norm_i, norm_j = tl.sqrt(square_i) + _TINY, tl.sqrt(square_j) + _TINY
    deviation = product / (norm_i[:, None] * norm_j[None, :]) - tl.where(i[:, None] == j[None, :], 1.0, 0.0).to(WIDE)
    to = _pointer(table, tensor, W, WIDE) + i[:, None] * rows + j[None, :]
    tl.store(to, 2 * _cast(omega, WIDE) * deviation / norm_j[None, :], (i < rows)[:, None] & (j < rows)[None, :])


@triton.jit
def regularize(table, tiles, DTYPE: tl.constexpr, WIDE: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr):
    """Writes a tile of the gradient with that of the regularizer."""
    tensor, first_i, first = _tile(tiles)
    n, rows = _size(table, tensor, SIZE), _size(table, tensor, ROWS)
    i, at = first_i + tl.arange(0, TILE), first + tl.arange(0, TILE)
    x, w = _pointer(table, tensor, X, DTYPE), _pointer(table, tensor, W, WIDE)
    inside = (i < rows)[:, None] & (at < n)[None, :]
    total = tl.load(_pointer(table, tensor, RAW, DTYPE) + i[:, None] * n + at[None, :], inside, other=0).to(WIDE)
    for start in range(0, rows, DEPTH):
        j = start + tl.arange(0, DEPTH)
        weights = tl.load(w + i[:, None] * rows + j[None, :], (i < rows)[:, None] & (j < rows)[None, :], other=0)
        x_j = tl.load(x + j[:, None] * n + at[None, :], (j < rows)[:, None] & (at < n)[None, :], other=0).to(WIDE)
        total = tl.dot(weights, x_j, total, input_precision="ieee", out_dtype=WIDE)
    tl.store(_pointer(table, tensor, G, WIDE) + i[:, None] * n + at[None, :], total, inside)


@triton.jit
def _tile(tiles):
    at = tiles + 3 * tl.program_id(0)
    return tl.load(at), tl.load(at + 1), tl.load(at + 2)
