"""Tables of many tensors for the Triton kernels."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import triton
import triton.language as tl
from torch import Tensor

from . import orthogonality, programs, rules
from .division import BLOCKS, CHUNK, DEPTH, PIECE, TILE, choose_widths, into_blocks, into_pieces, into_tiles
from .shards import wide_dtype

LENGTHS = {"BLOCK": PIECE, "CHUNK": CHUNK, "TILE": TILE, "DEPTH": DEPTH}
NUMBERS = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format(weight: Tensor, by_row: bool) -> torch.memory_format | None:
    """The layout of a weight whose rows lie one after the other; None if they do not.

    In the channels-last layouts this is so for `by_row`, rows along all axes but the first, and for a whole tensor.
    """
    if weight.is_contiguous():
        return torch.contiguous_format
    layout = FORMATS.get(weight.ndim)
    return layout if by_row and layout and weight.is_contiguous(memory_format=layout) else None


class Table:
    """Tensors of one device and dtype that a rule updates together.

    Args:
        weights: Local weights.
        rows: Number of rows of each, elements of a row, and elements of a row over all shards.
        formats: Memory format of each.
        cut: Whether all rows are cut into pieces, however short: rows that are sharded, that whole tensors form, or
            whose products nobody needs.
        groups: Process groups over which the rows are sharded.
        orthogonal: Whether the gradients are to draw the rows of each towards being orthogonal.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        rows: Sequence[tuple[int, int, int]],
        formats: Sequence[torch.memory_format],
        cut: bool,
        groups: tuple[Any, ...] = (),
        orthogonal: bool = False,
    ) -> None:
        self.formats, self.groups = list(formats), groups
        self.device, self.dtype, self.wide = weights[0].device, weights[0].dtype, wide_dtype(weights[0])
        self.types = {"DTYPE": NUMBERS[self.dtype], "WIDE": NUMBERS[self.wide]}
        self.types["GRAD"] = self.types["WIDE" if orthogonal else "DTYPE"]
        self.addresses: list[int] = []
        self.compiled: dict[tuple[Any, ...], Any] = {}
        self.sizes = torch.tensor(rows).flip(1).T
        self.captured: list[tuple[Tensor, Tensor]] = []
        self.own: list[Tensor] = []  # gradients that nobody else holds, until the step is taken
        widths = choose_widths(rows, cut)
        self.blocks = into_blocks(rows, widths, self.device)
        self.pieces, self.rows = into_pieces(rows, widths, self.device)
        if groups:  # the products are summed over a row's pieces before they are summed over processes
            index = torch.arange(len(self.rows), device=self.device)[:, None]
            self.summed_rows = torch.cat([self.rows[:, :2], index, index + 1], 1)
        make = {"dtype": self.wide, "device": self.device}
        self.products = torch.zeros(6, len(self.pieces), **make)
        self.sums, self.coefficients = torch.zeros(6, len(self.rows), **make), torch.zeros(len(self.rows), 6, **make)
        self.corrections = torch.zeros(len(weights), 2, dtype=torch.float64, device=self.device)
        self.matrices = [(number, size) for number, size, _ in rows] if orthogonal else []
        self.product_tiles = into_tiles([(number, number) for number, _ in self.matrices], self.device)
        self.gradient_tiles = into_tiles(self.matrices, self.device)

    def point_to(self, columns: Sequence[Sequence[Tensor] | None]) -> None:
        """Makes the entries anew, with the addresses of the tensors of each field; of the last fields there may be none."""
        none = [0] * self.sizes.shape[1]
        addresses = [[t.data_ptr() for t in column] if column else none for column in columns]
        addresses += [none] * (programs.FIELDS.value - len(self.sizes) - len(addresses))
        entries = torch.cat([torch.tensor(addresses), self.sizes]).T.contiguous()
        self.host_entries = entries.pin_memory() if self.device.type == "cuda" else entries
        self.entries = self.host_entries.to(self.device, non_blocking=True)

    def keep_for_graph(self) -> None:
        """Keeps the entries for the CUDA graph that is being captured, if one is, as it will read them at each replay."""
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            self.captured.append((self.entries, self.host_entries))

    def make_room(self) -> list[Sequence[Tensor]]:
        """Room for the gradients that make rows orthogonal and for the rows' products, until the step is taken."""
        sizes = [[rows * size for rows, size in self.matrices], [rows * rows for rows, _ in self.matrices]]
        flat = [torch.empty(sum(of), dtype=self.wide, device=self.device) for of in sizes]
        self.own += flat
        return [room.split(of) for room, of in zip(flat, sizes, strict=True)]

    def squared_gradient_norm(self) -> Tensor:
        """The squared norm of all gradients together, over all shards."""
        self._multiply(has_x=False, has_m=False)
        return (self.sums if self.groups else self.products)[3].sum()

    def limit_step(
        self, sq_norm: Tensor, loss: Tensor, lr: float | Tensor, eps: float, skipped: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """ALI-G's step size, the same without its bound, and 1 if the step is to be skipped, which counts in `skipped`."""
        sq_norm, loss = sq_norm.to(self.device, self.wide), loss.to(self.device, self.wide)
        lr, skipped = self._here(lr), skipped.to(self.device)
        sizes, skip = torch.empty(2, dtype=self.wide, device=self.device), torch.empty_like(skipped)
        arguments = sq_norm, loss, sizes, skip, skipped, *self._rate(lr), eps
        self._launch("limit_step", 1, arguments, rate=lr)
        return sizes[0], sizes[1], skip

    def step(
        self,
        rule: str,
        lr: float | Tensor,
        settings: Sequence[float] = (),
        *,
        has_m: bool,
        has_v: bool = False,
        betas: tuple[float, float] | None = None,
        products: bool = True,
        omega: float = 0.0,
        skip: Tensor | None = None,
    ) -> None:
        """Updates all rows.

        Args:
            rule: The name of the rule.
            lr: Learning rate.
            settings: Up to four settings of the rule.
            has_m: Whether there is a momentum.
            has_v: Whether there is a second moment.
            betas: For rules with Adam's corrections: counts a step.
            products: Whether the rule needs the rows' dot products.
            omega: How strongly rows are drawn towards being orthogonal.
            skip: A number; 1 leaves rows that are cut as they are.
        """
        lr = self._here(lr)
        if betas:
            self._count(betas)
        if omega:
            self._launch("compare_rows", len(self.product_tiles), (self.entries, self.product_tiles, omega))
            self._launch("regularize", len(self.gradient_tiles), (self.entries, self.gradient_tiles))
        if products:
            self._multiply(has_x=True, has_m=has_m)
        numbers = (*self._rate(lr), *settings, *[0.0] * (4 - len(settings)))
        kind = {"RULE": rule, "HAS_M": has_m, "HAS_V": has_v, "COUNTS": betas is not None}
        for width, blocks in self.blocks.items():
            arguments = self.entries, blocks, self.corrections, *numbers
            self._launch("step_rows", len(blocks), arguments, rate=lr, **kind, HEIGHT=BLOCKS[width], WIDTH=width)
        rows, summed = (self.summed_rows, self.sums) if self.groups else (self.rows, self.products)
        arguments = self.entries, rows, summed, summed.shape[1], self.coefficients, self.corrections, *numbers
        self._launch("combine", len(rows), arguments, rate=lr, **kind)
        skip_here = self.corrections if skip is None else skip.to(self.device)
        arguments = self.entries, self.pieces, self.coefficients, skip_here
        self._launch("move", len(self.pieces), arguments, HAS_M=has_m, SKIP=skip is not None)
        self.own = []

    def sgd(self, lr: float | Tensor, momentum: float, dampening: float, weight_decay: float, nesterov: bool) -> None:
        """Takes a step of `torch.optim.SGD`."""
        settings = momentum, 1 - dampening if momentum else 1.0, weight_decay, float(nesterov)
        self.step("sgd", lr, settings, has_m=momentum != 0, products=False)

    def adam(self, lr: float | Tensor, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        """Counts and takes a step of `torch.optim.Adam`."""
        lr = self._here(lr)
        self._count(betas)
        arguments = self.entries, self.pieces, self.corrections, *self._rate(lr), *betas, eps, weight_decay
        self._launch("adam", len(self.pieces), arguments, rate=lr)
        self.own = []

    def _count(self, betas: Sequence[float]) -> None:
        """Counts a step of every tensor, whose Adam corrections follow."""
        logs = [math.log(beta) if beta else -math.inf for beta in betas]
        self._launch("count", self.sizes.shape[1], (self.entries, self.corrections, *logs))

    def _multiply(self, has_x: bool, has_m: bool) -> None:
        """Computes the dot products of all rows that are cut, over all shards."""
        arguments = self.entries, self.pieces, self.products
        self._launch("multiply", len(self.pieces), arguments, HAS_X=has_x, HAS_M=has_m)
        if self.groups:
            self._launch("add_up", len(self.rows), (self.rows, self.products, self.products.shape[1], self.sums))
            for group in self.groups:
                dist.all_reduce(self.sums, group=group)

    def _here(self, lr: float | Tensor) -> float | Tensor:
        """A learning rate that lies on another accelerator, brought to the table's."""
        return lr.to(self.device) if isinstance(lr, Tensor) and not lr.is_cpu else lr

    def _rate(self, lr: float | Tensor) -> tuple[Tensor, float]:
        """A learning rate as arguments of a kernel: a tensor to be read, and a number if that is none."""
        return (self.corrections, float(lr)) if self._rate_type(lr) is None else (lr, 0.0)

    def _rate_type(self, lr: float | Tensor) -> tl.dtype | None:
        return NUMBERS.get(lr.dtype) if isinstance(lr, Tensor) and lr.device == self.device else None

    def _launch(
        self, name: str, count: int, arguments: Sequence[Any], rate: float | Tensor = 0.0, **constants: Any
    ) -> None:
        """Launches a kernel; but for the first time with the same constants, without Triton's search for the compiled one.

        Args:
            name: The kernel's name.
            count: Number of programs.
            arguments: Its arguments; those in one place always are of one kind, but for the rate.
            rate: The learning rate among them.
            constants: Its constants, but for those that follow from the table.
        """
        if not count:
            return
        if self.device.type == "cuda" and torch.cuda.current_device() != self.device.index:
            with torch.cuda.device(self.device):
                return self._launch(name, count, arguments, rate, **constants)
        key = (name, self._rate_type(rate), *constants.values())
        if key in self.compiled:
            launch, values = self.compiled[key]
            launch(*[a.data_ptr() if isinstance(a, Tensor) else a for a in arguments], *values)
            return
        kernel = getattr(programs, name, None) or getattr(orthogonality, name)
        known = {**self.types, **constants, **LENGTHS, "RATE": self._rate_type(rate)}
        if "RULE" in constants:
            known["RULE"] = getattr(rules, constants["RULE"])
        used = {parameter: known[parameter] for parameter in kernel.arg_names if parameter in known}
        compiled = kernel[(count, 1, 1)](*arguments, **used)
        if compiled is not None:  # as it is in the interpreter
            self.compiled[key] = compiled[(count, 1, 1)], tuple(used.values())


def interpreted() -> bool:
    """Whether kernels are interpreted, and so work on CPU tensors."""
    return triton.knobs.runtime.interpret
