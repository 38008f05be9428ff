"""One row a shape of subspace, the golden network, and the small modules the generic tests run over."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_geo.subspaces import Subspace, SubspaceConfig
from tests.paths import GOLDEN


@dataclass(frozen=True)
class Case:
    """A shape.

    Args:
        id: Name of the row.
        kind, num_points: Of the configuration.
        coefficients: From a number in [0, 1] to some position's (position, coefficients), written from the definition.
        ends: The position of every control point that the shape passes through, by the point's number.
        golden: The golden files' number of a control point, by ours.
    """

    id: str
    kind: str
    num_points: int
    coefficients: Callable[[float], tuple[object, list[float]]]
    ends: dict[int, object]
    golden: tuple[int, ...]

    def config(self, **settings: object) -> SubspaceConfig:
        return SubspaceConfig(kind=self.kind, num_points=self.num_points, **settings)

    def __str__(self) -> str:
        return self.id


def _barycentric(n: int) -> Callable[[float], tuple[object, list[float]]]:
    def coefficients(t: float) -> tuple[object, list[float]]:
        weights = [t, *[(1 - t) / (n - 1)] * (n - 1)]
        return weights, weights

    return coefficients


def _simplex(n: int) -> Case:
    vertices = {i: [float(i == j) for j in range(n)] for i in range(n)}
    return Case(f"simplex{n}", "simplex", n, _barycentric(n), vertices, tuple(range(n)))


CASES = (
    Case("line", "line", 2, lambda t: (t, [1 - t, t]), {0: 0.0, 1: 1.0}, (0, 1)),
    Case(
        "curve",
        "curve",
        3,
        lambda t: (t, [1 - 2 * t + t * t, 2 * t - 2 * t * t, t * t]),
        {0: 0.0, 2: 1.0},
        (0, 2, 1),  # the authors number start, end, bend
    ),
    _simplex(3),
    _simplex(5),
)
GOLDEN_ROWS = json.loads((GOLDEN / "subspaces" / "index.json").read_text())


class GoldenNetwork(nn.Module):
    """The network of the golden files."""

    def __init__(self, channels: int = 4, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * channels)
        self.fc = nn.Conv2d(2 * channels, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3), keepdim=True)).flatten(1)


class Wrapper(nn.Module):
    """Has the golden network inside, under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.network = GoldenNetwork()


def points_of(subspace: Subspace) -> list[dict[str, Tensor]]:
    return [subspace.point_state_dict(i) for i in range(subspace.config.num_points)]


class TiedLanguageModel(nn.Module):
    """Embedding and decoder share a weight; the decoder has a bias of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.norm = nn.LayerNorm(6)
        self.decoder = nn.Linear(6, 11)
        self.decoder.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(torch.tanh(self.norm(self.embedding(x))))


class Containers(nn.Module):
    """Parameters on the root, in lists and dicts, in a module used twice, and a frozen one; buffers that share memory."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 4))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.items = nn.ParameterList([torch.randn(4, 4), torch.randn(4)])
        self.named = nn.ParameterDict({"left": torch.randn(4, 4), "right": torch.randn(3)})
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(2, 4))])
        self.again = self.blocks[0]
        self.frozen = nn.Parameter(torch.randn(4, 3), requires_grad=False)
        self.register_buffer("table", torch.randn(3, 4))
        self.register_buffer("turned", self.table.T)  # not contiguous, in the memory of another

    def forward(self, x: Tensor) -> Tensor:
        x = self.again((x + self.token) * self.scale)
        for weight in self.items:
            x = x @ weight if weight.ndim == 2 else x + weight
        x = x @ self.named["left"]
        for block in self.blocks:
            x = block(x)
        return x @ self.frozen + self.named["right"]


class Recurrent(nn.Module):
    """cuDNN-style flat weights, which the module caches."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


class Spectral(nn.Module):
    """Complex weights in both precisions, and a complex buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(5, 5, dtype=torch.complex64))
        self.second = nn.Parameter(torch.randn(5, dtype=torch.complex128))
        self.out = nn.Linear(8, 2)
        self.register_buffer("shift", torch.randn(5, dtype=torch.complex128))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x) @ self.first * self.second + self.shift
        return self.out(torch.fft.irfft(spectrum, n=8).float())


@dataclass(frozen=True)
class Network:
    """A module and an input for it."""

    id: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    frozen: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return self.id


def _weight_normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.ReLU(), nn.Linear(5, 2))


NETWORKS = (
    Network("convolutions", GoldenNetwork, lambda: torch.randn(6, 3, 8, 8)),
    Network("tied", TiedLanguageModel, lambda: torch.arange(10).view(2, 5)),
    Network("containers", Containers, lambda: torch.randn(3, 4), frozenset({"frozen"})),
    Network(
        "encoder", lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), lambda: torch.randn(2, 3, 8)
    ),
    Network("recurrent", Recurrent, lambda: torch.randn(2, 3, 4)),
    Network("weight_norm", _weight_normed, lambda: torch.randn(3, 4)),
    Network("complex", Spectral, lambda: torch.randn(3, 8)),
)
# All networks with one shape, and all shapes around one network.
each_network_and_shape = pytest.mark.parametrize(
    ("network", "case"),
    [(network, CASES[0]) for network in NETWORKS] + [(NETWORKS[1], case) for case in CASES[1:]],
    ids=str,
)
