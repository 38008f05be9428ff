"""Neural-network subspaces: lines, curves and simplexes of weights around any module. Imports torch only."""

from .config import SubspaceConfig
from .draws import draw_generator, split_batch
from .regularizer import squared_cosine
from .shapes import SHAPES, Shape
from .subspace import Subspace

__all__ = ["SHAPES", "Shape", "Subspace", "SubspaceConfig", "draw_generator", "split_batch", "squared_cosine"]
