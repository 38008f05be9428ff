"""The division of many tensors among the programs of a Triton kernel.

Tensors are given by their number of rows, the elements of a row here, and those of a row over all shards.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

PIECE = 4096  # elements of a long row that one program works on
CHUNK = 256  # pieces of a row that are added up at a time
# Widths of the blocks that take rows whole, with the number of rows of a block; measured on an H200.
BLOCKS = {256: 4, 1024: 1, 2048: 1, 4096: 1}
FEW = 1 << 20  # elements in blocks of one width, below which they share the launch of the next width
TILE = 64  # rows and columns of a tile of a matrix
DEPTH = 32  # of the slices of two matrices whose products are added up


def choose_widths(rows: Sequence[tuple[int, int, int]], cut: bool) -> list[int | None]:
    """The width of the blocks that take the rows of each tensor; None for rows that are cut into pieces, as all are for `cut`."""
    widths = [None if cut else next((w for w in BLOCKS if size <= w), None) for _, size, _ in rows]
    for width in BLOCKS:
        wider = [w for w in widths if w and w > width]
        if wider and sum(rows[i][0] * rows[i][1] for i, w in enumerate(widths) if w == width) < FEW:
            widths = [min(wider) if w == width else w for w in widths]
    return widths


def into_blocks(
    rows: Sequence[tuple[int, int, int]], widths: Sequence[int | None], device: torch.device
) -> dict[int, Tensor]:
    """By width: the tensor and the first row of each block."""
    found = {}
    for width, height in BLOCKS.items():
        firsts = [(i, torch.arange(0, rows[i][0], height)) for i, w in enumerate(widths) if w == width]
        blocks = [torch.stack([torch.full_like(first, i), first], 1) for i, first in firsts if len(first)]
        if blocks:
            found[width] = torch.cat(blocks).to(device)
    return found


def into_pieces(
    rows: Sequence[tuple[int, int, int]], widths: Sequence[int | None], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cuts the rows that have no width.

    Returns:
        Tensor, offset, length and row of each piece; and of each row the tensor, its number there, its first piece and
        that of the next row.
    """
    pieces, cut_rows = [torch.empty(0, 4, dtype=torch.int64)], [torch.empty(0, 4, dtype=torch.int64)]
    row, piece = 0, 0
    for i, (number, size, _) in enumerate(rows):
        if widths[i] is not None:
            continue
        count = math.ceil(size / PIECE)
        start, index = torch.arange(count) * PIECE, torch.arange(number)
        offset = (index[:, None] * size + start).flatten()
        length = (size - start).clamp(max=PIECE).repeat(number)
        of_row = (row + index).repeat_interleave(count)
        pieces.append(torch.stack([torch.full_like(offset, i), offset, length, of_row], 1))
        first = piece + index * count
        cut_rows.append(torch.stack([torch.full_like(index, i), index, first, first + count], 1))
        row, piece = row + number, piece + number * count
    return torch.cat(pieces).to(device), torch.cat(cut_rows).to(device)


def into_tiles(shapes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """Number of the matrix, first row and first column of the tiles that matrices of these shapes are cut into."""
    tiles = [torch.empty(0, 3, dtype=torch.int64)]
    for number, (rows, columns) in enumerate(shapes):
        tiles.append(
            torch.cartesian_prod(torch.tensor([number]), torch.arange(0, rows, TILE), torch.arange(0, columns, TILE))
        )
    return torch.cat(tiles).to(device)
