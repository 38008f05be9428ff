"""Triton kernels that update all tensors of a table at once, by the rules of `rules`.

A table (see `tables`) holds, for every tensor, the addresses of weight, gradient and state and the division into rows. A row
that fits a block is updated by one program, which reads everything once. Longer rows are cut into pieces: `multiply` sums
up the dot products of each, `combine` makes a row's coefficients of them, and `move` applies these.

Settings are float64 numbers, brought to the precision of the arithmetic, WIDE. A rate that is a tensor on the same device is
read from its address, so that a captured CUDA graph follows it.
"""

import triton
import triton.language as tl

# The fields of a tensor: addresses; then a row's elements over all shards and here, and the number of rows. RAW is the gradient
# without that of the regularizer, W what the regularizer multiplies the rows with.
X, G, RAW, W, M, V, STEP, WHOLE, SIZE, ROWS, FIELDS = (tl.constexpr(i) for i in range(11))
PRODUCTS = tl.constexpr(6)
COEFFICIENTS = tl.constexpr(6)


@triton.jit
def _cast(number, WIDE: tl.constexpr):
    return (number * tl.full((), 1.0, tl.float64)).to(WIDE)


@triton.jit
def _pointer(table, tensor, FIELD: tl.constexpr, DTYPE: tl.constexpr):
    return tl.load(table + tensor * FIELDS + FIELD).to(tl.pointer_type(DTYPE))


@triton.jit
def _size(table, tensor, FIELD: tl.constexpr):
    return tl.load(table + tensor * FIELDS + FIELD)


@triton.jit
def _settings(lr, rate, RATE: tl.constexpr, s0, s1, s2, s3, WIDE: tl.constexpr):
    found = tl.load(rate).to(WIDE) if RATE is not None else _cast(lr, WIDE)
    return found, _cast(s0, WIDE), _cast(s1, WIDE), _cast(s2, WIDE), _cast(s3, WIDE)


@triton.jit
def count(table, corrections, log_beta1: tl.float64, log_beta2: tl.float64):
    """Counts a step of every tensor; writes Adam's corrections 1 - beta1^k and 1 - beta2^k."""
    tensor = tl.program_id(0)
    at = _pointer(table, tensor, STEP, tl.float32)
    step = tl.load(at) + 1
    tl.store(at, step)
    k = step.to(tl.float64)
    tl.store(corrections + 2 * tensor, 1 - tl.exp(k * log_beta1))
    tl.store(corrections + 2 * tensor + 1, 1 - tl.exp(k * log_beta2))


@triton.jit
def step_rows(
    table, blocks, corrections, rate, lr: tl.float64, s0: tl.float64, s1: tl.float64, s2: tl.float64, s3: tl.float64,
    RULE: tl.constexpr, DTYPE: tl.constexpr, GRAD: tl.constexpr, WIDE: tl.constexpr, RATE: tl.constexpr, HAS_M: tl.constexpr,
    HAS_V: tl.constexpr, COUNTS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Updates HEIGHT rows of one tensor, of at most WIDTH elements each."""
    tensor = tl.load(blocks + 2 * tl.program_id(0))
    n = _size(table, tensor, SIZE)
    rows = tl.load(blocks + 2 * tl.program_id(0) + 1) + tl.arange(0, HEIGHT)
    inside = rows < _size(table, tensor, ROWS)
    columns = tl.arange(0, WIDTH)
    # Offsets from the first row, so that they fit 32 bits.
    start = tl.load(blocks + 2 * tl.program_id(0) + 1) * n
    at = tl.arange(0, HEIGHT)[:, None] * n.to(tl.int32) + columns[None, :]
    mask = inside[:, None] & (columns < n)[None, :]
    to_x = _pointer(table, tensor, X, DTYPE) + start + at
    x = tl.load(to_x, mask, other=0).to(WIDE)
    g = tl.load(_pointer(table, tensor, G, GRAD) + start + at, mask, other=0).to(WIDE)
    xx, xg, gg = tl.sum(x * x, 1), tl.sum(x * g, 1), tl.sum(g * g, 1)
    m = x
    xm, gm, mm, v, c1, c2 = 0 * xx, 0 * xx, 0 * xx, 0 * xx, 0 * xx, 0 * xx
    if HAS_M:
        to_m = _pointer(table, tensor, M, WIDE) + start + at
        m = tl.load(to_m, mask, other=0)
        xm, gm, mm = tl.sum(x * m, 1), tl.sum(g * m, 1), tl.sum(m * m, 1)
    if HAS_V:
        v = tl.load(_pointer(table, tensor, V, WIDE) + rows, inside, other=0)
    if COUNTS:
        c1, c2 = tl.load(corrections + 2 * tensor).to(WIDE), tl.load(corrections + 2 * tensor + 1).to(WIDE)
    whole = _size(table, tensor, WHOLE).to(WIDE)
    lr, s0, s1, s2, s3 = _settings(lr, rate, RATE, s0, s1, s2, s3, WIDE)
    a, b, c, d, e, f, v = RULE(xx, xg, xm, gg, gm, mm, v, c1, c2, whole, lr, s0, s1, s2, s3)
    a, b, c, d, e, f = a[:, None], b[:, None], c[:, None], d[:, None], e[:, None], f[:, None]
    if HAS_M:
        tl.store(to_x, a * x + b * g + c * m, mask)
        tl.store(to_m, d * x + e * g + f * m, mask)
    else:
        tl.store(to_x, a * x + b * g, mask)
    if HAS_V:
        tl.store(_pointer(table, tensor, V, WIDE) + rows, v, inside)


@triton.jit
def multiply(
    table, pieces, products, DTYPE: tl.constexpr, GRAD: tl.constexpr, WIDE: tl.constexpr, HAS_X: tl.constexpr, HAS_M: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes the dot products of a piece of x, g and m with each other, zero for those that are not asked for."""
    piece = tl.program_id(0)
    tensor, start = tl.load(pieces + 4 * piece), tl.load(pieces + 4 * piece + 1)
    columns = tl.arange(0, BLOCK)
    mask = columns < tl.load(pieces + 4 * piece + 2)
    g = tl.load(_pointer(table, tensor, G, GRAD) + start + columns, mask, other=0).to(WIDE)
    x = tl.zeros((BLOCK,), WIDE)
    m = x
    if HAS_X:
        x = tl.load(_pointer(table, tensor, X, DTYPE) + start + columns, mask, other=0).to(WIDE)
    if HAS_M:
        m = tl.load(_pointer(table, tensor, M, WIDE) + start + columns, mask, other=0)
    to, count = products + piece, tl.num_programs(0)
    tl.store(to, tl.sum(x * x, 0))
    tl.store(to + count, tl.sum(x * g, 0))
    tl.store(to + 2 * count, tl.sum(x * m, 0))
    tl.store(to + 3 * count, tl.sum(g * g, 0))
    tl.store(to + 4 * count, tl.sum(g * m, 0))
    tl.store(to + 5 * count, tl.sum(m * m, 0))


@triton.jit
def _total(products, count, NUMBER: tl.constexpr, first, last, WIDE: tl.constexpr, CHUNK: tl.constexpr):
    total = tl.zeros((CHUNK,), WIDE)
    for start in range(first, last, CHUNK):
        at = start + tl.arange(0, CHUNK)
        total += tl.load(products + NUMBER * count + at, at < last, other=0)
    return tl.sum(total, 0)


@triton.jit
def add_up(long_rows, products, count, sums, WIDE: tl.constexpr, CHUNK: tl.constexpr):
    """Adds up the products of each row's pieces; `count` is the number of pieces."""
    row, rows = tl.program_id(0), tl.num_programs(0)
    first, last = tl.load(long_rows + 4 * row + 2), tl.load(long_rows + 4 * row + 3)
    for number in tl.static_range(PRODUCTS):
        tl.store(sums + number * rows + row, _total(products, count, number, first, last, WIDE, CHUNK))


@triton.jit
def combine(
    table, long_rows, products, count, coefficients, corrections, rate, lr: tl.float64, s0: tl.float64, s1: tl.float64, s2: tl.float64, s3: tl.float64,
    RULE: tl.constexpr, DTYPE: tl.constexpr, WIDE: tl.constexpr, RATE: tl.constexpr, HAS_M: tl.constexpr,
    HAS_V: tl.constexpr, COUNTS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Makes the coefficients of a row out of the products of its pieces, of which there are `count` in all; and its new v."""
    row = tl.program_id(0)
    tensor, number = tl.load(long_rows + 4 * row), tl.load(long_rows + 4 * row + 1)
    first, last = tl.load(long_rows + 4 * row + 2), tl.load(long_rows + 4 * row + 3)
    xx = _total(products, count, 0, first, last, WIDE, CHUNK)
    xg = _total(products, count, 1, first, last, WIDE, CHUNK)
    xm = _total(products, count, 2, first, last, WIDE, CHUNK)
    gg = _total(products, count, 3, first, last, WIDE, CHUNK)
    gm = _total(products, count, 4, first, last, WIDE, CHUNK)
    mm = _total(products, count, 5, first, last, WIDE, CHUNK)
    v, c1, c2 = 0 * xx, 0 * xx, 0 * xx
    if HAS_V:
        v = tl.load(_pointer(table, tensor, V, WIDE) + number)
    if COUNTS:
        c1, c2 = tl.load(corrections + 2 * tensor).to(WIDE), tl.load(corrections + 2 * tensor + 1).to(WIDE)
    n = _size(table, tensor, WHOLE).to(WIDE)
    lr, s0, s1, s2, s3 = _settings(lr, rate, RATE, s0, s1, s2, s3, WIDE)
    a, b, c, d, e, f, v = RULE(xx, xg, xm, gg, gm, mm, v, c1, c2, n, lr, s0, s1, s2, s3)
    to = coefficients + COEFFICIENTS * row
    tl.store(to, a)
    tl.store(to + 1, b)
    tl.store(to + 2, c)
    tl.store(to + 3, d)
    tl.store(to + 4, e)
    tl.store(to + 5, f)
    if HAS_V:
        tl.store(_pointer(table, tensor, V, WIDE) + number, v)


@triton.jit
def move(
    table, pieces, coefficients, skip, DTYPE: tl.constexpr, GRAD: tl.constexpr, WIDE: tl.constexpr, HAS_M: tl.constexpr, SKIP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Applies the coefficients of its row to a piece, unless the number at `skip` is 1."""
    piece = tl.program_id(0)
    tensor, start = tl.load(pieces + 4 * piece), tl.load(pieces + 4 * piece + 1)
    columns = tl.arange(0, BLOCK)
    length = tl.load(pieces + 4 * piece + 2)
    if SKIP:
        length = tl.where(tl.load(skip) == 1, 0, length)
    mask = columns < length
    to = coefficients + COEFFICIENTS * tl.load(pieces + 4 * piece + 3)
    to_x = _pointer(table, tensor, X, DTYPE) + start + columns
    x = tl.load(to_x, mask, other=0).to(WIDE)
    g = tl.load(_pointer(table, tensor, G, GRAD) + start + columns, mask, other=0).to(WIDE)
    new = tl.load(to) * x + tl.load(to + 1) * g
    if HAS_M:
        to_m = _pointer(table, tensor, M, WIDE) + start + columns
        m = tl.load(to_m, mask, other=0)
        new += tl.load(to + 2) * m
        tl.store(to_m, tl.load(to + 3) * x + tl.load(to + 4) * g + tl.load(to + 5) * m, mask)
    tl.store(to_x, new, mask)


@triton.jit
def adam(
    table, pieces, corrections, rate, lr: tl.float64, s0: tl.float64, s1: tl.float64, s2: tl.float64, s3: tl.float64,
    DTYPE: tl.constexpr, GRAD: tl.constexpr, WIDE: tl.constexpr, RATE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adam's step of a piece."""
    piece = tl.program_id(0)
    tensor, start = tl.load(pieces + 4 * piece), tl.load(pieces + 4 * piece + 1)
    columns = tl.arange(0, BLOCK)
    mask = columns < tl.load(pieces + 4 * piece + 2)
    lr, beta1, beta2, eps, weight_decay = _settings(lr, rate, RATE, s0, s1, s2, s3, WIDE)
    c1, c2 = tl.load(corrections + 2 * tensor).to(WIDE), tl.load(corrections + 2 * tensor + 1).to(WIDE)
    to_x = _pointer(table, tensor, X, DTYPE) + start + columns
    to_m, to_v = _pointer(table, tensor, M, WIDE) + start + columns, _pointer(table, tensor, V, WIDE) + start + columns
    x = tl.load(to_x, mask, other=0).to(WIDE)
    g = tl.load(_pointer(table, tensor, G, GRAD) + start + columns, mask, other=0).to(WIDE) + weight_decay * x
    m = tl.load(to_m, mask, other=0)
    m = beta1 * m + (1 - beta1) * g
    v = tl.load(to_v, mask, other=0)
    v = beta2 * v + (1 - beta2) * g * g
    tl.store(to_m, m, mask)
    tl.store(to_v, v, mask)
    tl.store(to_x, x - lr / c1 * m / (tl.sqrt(v / c2) + eps), mask)


@triton.jit
def limit_step(
    sq_norm, loss, sizes, skip, skipped, rate, lr: tl.float64, eps: tl.float64, WIDE: tl.constexpr, RATE: tl.constexpr
):
    """ALI-G's step size with and without its bound, whether the step is skipped, and the number of skipped ones."""
    square, now = tl.load(sq_norm), tl.load(loss).to(WIDE)
    both = square + now
    is_bad = both - both != 0  # so it is for infinite numbers, and those that are none
    unlimited = tl.where(is_bad | (now <= 0), 0.0, now / (square + _cast(eps, WIDE)))
    limit = tl.load(rate).to(WIDE) if RATE is not None else _cast(lr, WIDE)
    tl.store(sizes, tl.minimum(unlimited, limit))
    tl.store(sizes + 1, unlimited)
    tl.store(skip, tl.where(is_bad, 1.0, 0.0))
    tl.store(skipped, tl.load(skipped) + tl.where(is_bad, 1.0, 0.0))
