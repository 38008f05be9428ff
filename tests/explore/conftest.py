"""The trained folders that the tests of the page share."""

from pathlib import Path

import pytest
import torch

from hf_geo.subspaces import SubspaceConfig
from tests.evaluation.test_script import make_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with "line", "layers" (a line layer by layer), "simplex", "four" (a layer-wise simplex of four) and "plain", all untrained."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("explored")
    configs = {
        "line": SubspaceConfig("line", beta=0.0),
        "layers": SubspaceConfig("line", beta=0.0, layerwise=True),
        "simplex": SubspaceConfig("simplex", num_points=3, beta=0.0),
        "four": SubspaceConfig("simplex", num_points=4, beta=0.0, layerwise=True),
        "plain": None,
    }
    for name, config in configs.items():
        make_run(folder / name, config)
    return folder
