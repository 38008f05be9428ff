"""A line, curve or simplex of networks in one module."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike

import torch
from torch import Tensor, nn

from ._points import Weights, choose_parameters, initial_points
from ._saved import SavedSubspace
from ._span import Span, add_points, check_plain, find_spans, gathered
from ._state import plain_state_dict
from .config import SubspaceConfig
from .regularizer import squared_cosine
from .shapes import check_sum

Position = float | Sequence[float] | Tensor


class Subspace:
    """Control points of a model and the position between them that its `forward` runs at.

    Made by `attach` or `load`. Every spanned parameter `w` then holds one ordinary `Parameter` a control point
    (`parametrizations.w.original0`, ...), and reading `w` gives their sum weighted by the coefficients of the position;
    the model keeps its class and `forward`. Make the optimizer after attaching.

    A layer is a module with spanned parameters of its own; its weight and bias share a row of coefficients. A tied
    tensor belongs to the first module that has it and stays tied at every position.

    Differs from the authors' code: any module, not convolutions and batch norms alone; the regularizer covers every
    spanned weight with two or more axes; points are numbered along a curve; draws are keyed, so that a resumed run
    repeats them. Reference: Wortsman et al. 2021, "Learning Neural Network Subspaces", arXiv 2102.10472.

    Example:
        >>> subspace = Subspace.attach(model, SubspaceConfig(kind="line"), model_init=make_model)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> for step, (inputs, labels) in enumerate(loader):
        ...     generator = draw_generator(seed, step)
        ...     subspace.sample(generator)
        ...     loss = cross_entropy(model(inputs), labels)
        ...     loss = loss + subspace.config.beta * subspace.regularizer(generator=generator)
        ...     loss.backward(); optimizer.step(); optimizer.zero_grad()
        >>> subspace.set_centre()

    `save_pretrained` (of transformers, PEFT and huggingface_hub) and timm's `save_for_hf` write the plain network at the
    current position, which opens without this package; `save` writes all control points. Any other state dict has the
    control points, those in the checkpoints of a transformers Trainer included.

    Two positions may share a backward pass, except under gradient checkpointing, which runs `forward` again at the
    position of that time: there, call `backward` before the next position.

    Args:
        model: One that `attach` has been called on, or a deep copy of it; at the centre from now on.
        config: The settings it was attached with.
    """

    def __init__(self, model: nn.Module, config: SubspaceConfig) -> None:
        self.model = model
        self.config = config
        self._spans = find_spans(model)
        if not self._spans:
            raise ValueError("The model has no control points yet: call Subspace.attach(model, config).")
        rows = {}
        for span in self._spans:
            rows.setdefault(span.combination.row, span.names[0].rpartition(".")[0])
        self.layer_names: list[str] = [rows[i] for i in range(len(rows))]
        if config.fixed_ends:
            for span in self._spans:
                for end in (span.points[0], span.points[-1]):
                    end.requires_grad_(False)
        self.set_centre()

    @classmethod
    def attach(
        cls,
        model: nn.Module,
        config: SubspaceConfig,
        *,
        model_init: Callable[[], nn.Module] | None = None,
        points: Mapping[int, Weights] | None = None,
        seed: int = 0,
    ) -> "Subspace":
        """Gives the trainable parameters of `model` control points, in place; frozen ones and buffers stay as they are.

        Control point 0 is the model as it is. Later ones come from `points`; else from `model_init`, called once for
        each under its own random state; else from the first by a jitter (`config.jitter`), for fine-tuning. The bend of
        a curve whose end is given starts halfway between the ends.

        Args:
            model: Any module.
            config: The subspace's settings.
            model_init: Makes a freshly initialised network of the same architecture.
            points: State dicts of the plain model (or of the network it wraps), or a `.safetensors` file or a
                folder with `model.safetensors`, by the number of the control point.
            seed: Keys the random state of `model_init` and of the jitter.

        Returns:
            The subspace, with the model at the centre.

        Raises:
            ValueError: The model has a subspace already; `config.parameters` match nothing; points that are equal or do
                not fit the model.
        """
        check_plain(model)
        chosen = choose_parameters(model, config)
        add_points(chosen, initial_points(model, chosen, config, model_init, points or {}, seed))
        return cls(model, config)

    @property
    def coefficients(self) -> Tensor:
        """The current coefficients, (num_points,) or, when layerwise, (num_layers, num_points)."""
        rows = {span.combination.row: torch.stack(span.combination.weights) for span in self._spans}
        return torch.stack([rows[i] for i in range(len(rows))]) if self.config.layerwise else rows[0]

    def set_position(self, position: Position) -> None:
        """Moves the model to a position.

        Args:
            position: Line and curve: a number in [0, 1]. Simplex: `num_points` weights that sum to one. When
                layerwise, also a row of that for every layer.

        Raises:
            ValueError: It is not one of those.
        """
        self.move_to(self._coefficients_at(position))

    def set_coefficients(self, weights: Sequence[float] | Tensor) -> None:
        """Moves the model to given weights of the control points, which may lie outside the shape.

        Args:
            weights: (num_points,), or (num_layers, num_points) when layerwise.

        Raises:
            ValueError: Another shape, or a row that does not sum to one.
        """
        weights = torch.as_tensor(weights, dtype=torch.float64)
        shapes = [(self.config.num_points,)]
        if self.config.layerwise:
            shapes.append((len(self.layer_names), self.config.num_points))
        if tuple(weights.shape) not in shapes:
            allowed = " or ".join(str(shape) for shape in shapes)
            raise ValueError(f"Coefficients here have shape {allowed}; got {tuple(weights.shape)}.")
        check_sum(weights)
        self.move_to(weights)

    def move_to(self, coefficients: Tensor) -> None:
        """As `set_coefficients`, unchecked: no value is read, so `torch.func.vmap` may run it over several positions."""
        if self.config.layerwise:
            # A tensor for each layer even if all are equal: compiled code guards on which are the same.
            coefficients = coefficients.expand(len(self.layer_names), -1)
        # Normal tensors even inside inference mode: training may go on at this position.
        with torch.inference_mode(False):
            copies: dict[tuple[torch.device, torch.dtype], list[tuple[Tensor, ...]]] = {}
            for span in self._spans:
                kind = span.first.device, span.weights_dtype
                if kind not in copies:
                    copies[kind] = _rows(coefficients.detach().to(*kind, copy=True))
                rows = copies[kind]
                span.combination.weights = rows[span.combination.row if len(rows) > 1 else 0]

    def set_centre(self) -> None:
        """Moves the model to 0.5 of a line or curve, or to equal weights of a simplex."""
        self.move_to(self._coefficients_at(None))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws a position as in training (uniform; one for every layer when layerwise) and moves the model there.

        Args:
            generator: As from `draw_generator(seed, step, rank)`; torch's global one when not given.

        Returns:
            The position, as `set_position` takes it.
        """
        rows = (len(self.layer_names),) if self.config.layerwise else ()
        position = self.config.shape.draw(rows, self.config.num_points, generator)
        self.move_to(self.config.shape.coefficients(position))
        return position

    def regularizer(self, pair: tuple[int, int] | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Squared cosine of two control points over their weights with two or more axes, each tied tensor counted once.

        Args:
            pair: Numbers of two control points; drawn when not given (a curve's are its ends, unless `penalize_bend`).
            generator: For that draw. Where parameters are sharded it has to be in the same state in every process, so
                key it without the rank.

        Returns:
            A tensor of shape (), to be added to the loss with the factor `config.beta`.
        """
        if pair is None:
            pair = self.config.shape.draw_pair(self.config.num_points, generator, self.config.penalize_bend)
        return squared_cosine(*map(self.point_weights, pair))

    def point_weights(self, index: int) -> list[Tensor]:
        """The spanned weights of control point `index` with two or more axes; sharded ones are not gathered."""
        self.config.check_point(index)
        return [span.points[index] for span in self._spans if span.first.ndim >= 2]

    def point_state_dict(self, index: int) -> dict[str, Tensor]:
        """Control point `index` as a state dict of the plain model.

        Buffers and parameters without control points are the model's. Tensors share memory with the model, except
        that sharded ones are gathered (then every process has to call this).
        """
        self.config.check_point(index)
        return plain_state_dict(self.model, self._spans, lambda span: gathered(span.points[index]))

    def folded_state_dict(self, position: Position | None = None) -> dict[str, Tensor]:
        """The plain model's state dict at a position (the current one when not given), as `point_state_dict`.

        Norm statistics are the model's current ones: recalibrate them at that position first.
        """
        rows = None if position is None else _rows(self._coefficients_at(position))

        def value(span: Span) -> Tensor:
            row = span.combination.row
            return span.combined(span.combination.weights if rows is None else rows[row if len(rows) > 1 else 0])

        return plain_state_dict(self.model, self._spans, value)

    def save(self, folder: str | PathLike) -> None:
        """Writes `subspace_config.json` and `subspace.safetensors`: every control point and the model's buffers.

        Extra states of modules (`get_extra_state`) are not written. If parameters are sharded every process has to call
        this, and the first writes.
        """
        saved = SavedSubspace.collect(self.model, self._spans, self.config, self.layer_names)
        if saved is not None:
            saved.write(folder)

    @classmethod
    def load(cls, folder: str | PathLike, model: nn.Module) -> "Subspace":
        """Attaches a saved subspace to a plain model of the same architecture, bit for bit.

        Parameters without control points and extra states stay the model's own.

        Args:
            folder: The folder that `save` wrote, or the id of a Hub repository that has the two files.
            model: The plain model; changed in place.

        Raises:
            ValueError: The subspace is of another architecture (the message names the first mismatch), or its files are
                missing or damaged.
        """
        check_plain(model)
        saved = SavedSubspace.read(folder)
        return cls(saved.add_to(model, folder), saved.config)

    def _coefficients_at(self, position: Position | None) -> Tensor:
        shape, config = self.config.shape, self.config
        if position is None:
            return shape.coefficients(shape.centre(config.num_points))
        position = torch.as_tensor(position, dtype=torch.float64)
        shape.check(position, config.num_points, len(self.layer_names) if config.layerwise else None)
        return shape.coefficients(position)


def _rows(coefficients: Tensor) -> list[tuple[Tensor, ...]]:
    """The weights of the control points, one tuple a layer or one for all layers."""
    return [row.unbind() for row in coefficients.unbind()] if coefficients.ndim == 2 else [coefficients.unbind()]
