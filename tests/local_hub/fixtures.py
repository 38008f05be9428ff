"""The `hub` fixture."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local_hub.hub import LocalHub


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    """A Hub of the test's own, with nothing in it but the shared data sets."""
    with LocalHub(tmp_path / "local-hub") as running:
        yield running
