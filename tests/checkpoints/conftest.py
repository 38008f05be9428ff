"""What is flushed to the disk."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def flushed(monkeypatch) -> list[Path]:
    """The files and folders that were flushed to the disk."""
    paths, fsync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: paths.append(Path(os.readlink(f"/proc/self/fd/{handle}"))) or fsync(handle)
    )
    return paths
