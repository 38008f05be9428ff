"""A line, curve or simplex of networks in one module."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike

import torch
from torch import Tensor, nn

from . import _files
from ._points import Weights, initial_points
from ._span import Span, add_points, check_plain, combine, find_holders, find_spans
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
    repeats them.

    Reference: Wortsman et al. 2021, "Learning Neural Network Subspaces", arXiv 2102.10472.

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

    Two positions may share a backward pass, except under gradient checkpointing, which runs `forward` again at the
    position of that time: there, call `backward` before the next position.

    Args:
        model: A model that `attach` has been called on, or a deep copy of one; at the centre from now on.
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
            points: State dicts of the plain model (or of what it is a wrapper around), or a `.safetensors` file or a
                folder with `model.safetensors`, by the number of the control point.
            seed: Keys the random state of `model_init` and of the jitter.

        Returns:
            The subspace, with the model at the centre.

        Raises:
            ValueError: The model has a subspace already; `config.parameters` match nothing; points that are equal or do
                not fit the model.
        """
        check_plain(model)
        trainable = {p: held for p, held in find_holders(model).items() if p.requires_grad}
        chosen = {p: held for p, held in trainable.items() if any(config.selects(name) for name in held.names)}
        if not chosen:
            what = f"matches parameters={config.parameters!r}" if trainable else "requires a gradient"
            raise ValueError(f"No parameter of the model {what}, so there is nothing to span (frozen ones never are).")
        if config.beta > 0 and all(p.ndim < 2 for p in chosen):
            raise ValueError(
                f"No parameter that parameters={config.parameters!r} selects has two or more axes, "
                "so there is nothing to regularize: set beta to 0."
            )
        first = {held.names[0]: parameter.detach() for parameter, held in chosen.items()}
        values = initial_points(first, config, model_init, points or {}, seed)
        add_points(list(chosen.values()), values)
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
            # A tensor for each layer even where all are equal: compiled code relies on which are the same.
            coefficients = coefficients.expand(len(self.layer_names), -1)
        # Normal tensors even inside inference mode: training may go on at this position.
        with torch.inference_mode(False):
            placed: dict[tuple[torch.device, torch.dtype], list[tuple[Tensor, ...]]] = {}
            for span in self._spans:
                where, held = (span.first.device, _dtype(span.first)), span.combination
                if where not in placed:
                    placed[where] = _rows(coefficients.detach().to(*where, copy=True))
                rows = placed[where]
                held.weights = rows[held.row if len(rows) > 1 else 0]

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
            pair: Numbers of two control points; drawn when not given (a curve's are its ends).
            generator: For that draw. Where parameters are sharded it has to be in the same state in every process, so
                key it without the rank.

        Returns:
            A tensor without axes, to be added to the loss with the factor `config.beta`.
        """
        if pair is None:
            pairs = self.config.shape.pairs(self.config.num_points)
            device = generator.device if generator is not None else "cpu"
            drawn = torch.randint(len(pairs), (), generator=generator, device=device) if len(pairs) > 1 else 0
            pair = pairs[int(drawn)]
        for index in pair:
            self._check_index(index)
        points = [span.points for span in self._spans if span.first.ndim >= 2]
        return squared_cosine(*([point[index] for point in points] for index in pair))

    def point_state_dict(self, index: int) -> dict[str, Tensor]:
        """Control point `index` as a state dict of the plain model.

        Buffers and parameters without control points are the model's. Tensors share memory with the model, except
        that sharded ones are gathered (then every process has to call this).
        """
        self._check_index(index)
        return self._plain(lambda span: _gathered(span.points[index]))

    def folded_state_dict(self, position: Position | None = None) -> dict[str, Tensor]:
        """The plain model's state dict at a position (the current one when not given), as `point_state_dict`.

        Norm statistics are the model's current ones: recalibrate them at that position first.
        """
        rows = None if position is None else _rows(self._coefficients_at(position))

        def value(span: Span) -> Tensor:
            points = [_gathered(point) for point in span.points]
            held = span.combination
            weights = held.weights if rows is None else rows[held.row if len(rows) > 1 else 0]
            return combine(points, [w.to(points[0].device, _dtype(points[0])) for w in weights])

        return self._plain(value)

    def save(self, folder: str | PathLike) -> None:
        """Writes `subspace_config.json` and `subspace.safetensors`: every control point and the model's buffers.

        When parameters are sharded every process has to call this, and the first writes.
        """
        _files.save(self, folder)

    @classmethod
    def load(cls, folder: str | PathLike, model: nn.Module) -> "Subspace":
        """Attaches a saved subspace to a plain model of the same architecture, bit for bit.

        Parameters without control points stay the model's own.

        Args:
            folder: What `save` wrote to, or the id of a Hub repository that has the two files.
            model: The plain model; changed in place.

        Raises:
            ValueError: The subspace is of another architecture (the message names the first mismatch), or its files are
                missing or damaged.
        """
        return _files.load(cls, folder, model)

    def _coefficients_at(self, position: Position | None) -> Tensor:
        shape, config = self.config.shape, self.config
        if position is None:
            return shape.coefficients(shape.centre(config.num_points))
        position = torch.as_tensor(position, dtype=torch.float64)
        shape.check(position, config.num_points, len(self.layer_names) if config.layerwise else None)
        return shape.coefficients(position)

    def _check_index(self, index: int) -> None:
        if index not in range(self.config.num_points):
            raise ValueError(f"A {self.config.kind} of {self.config.num_points} points has no control point {index!r}.")

    def _plain(self, value: Callable[[Span], Tensor]) -> dict[str, Tensor]:
        spanned = {name for span in self._spans for name in span.point_names}
        state = {name: _gathered(t) for name, t in self.model.state_dict().items() if name not in spanned}
        with torch.no_grad():
            for span in self._spans:
                # One tensor under all of a tied tensor's names, as in the plain model.
                state.update(dict.fromkeys(span.names, value(span)))
        return state


def _rows(coefficients: Tensor) -> list[tuple[Tensor, ...]]:
    """The weights of each layer's points, or of all layers' alike."""
    return [row.unbind() for row in coefficients.unbind()] if coefficients.ndim == 2 else [coefficients.unbind()]


def _gathered(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach()


def _dtype(point: Tensor) -> torch.dtype:
    # Coefficients keep float32 beside half precision weights (0.3 is no bfloat16).
    return torch.promote_types(point.real.dtype, torch.float32)
