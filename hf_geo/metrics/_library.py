"""The `evaluate` library, even for a script that has an evaluate.py beside it, and the base of this package's metrics."""

import sys
from pathlib import Path
from typing import Any

_path = sys.path
# Python looks into the script's own folder first, where a file of that name would be taken for the library.
sys.path = [entry for entry in _path if not Path(entry, "evaluate.py").is_file()]
try:
    import evaluate
finally:
    sys.path = _path

__all__ = ["InMemoryMetric", "evaluate"]


class InMemoryMetric(evaluate.Metric):
    """A metric that keeps its values in memory unless asked otherwise, and then uses no folder.

    Processes that evaluate at the same time share no file, and a cache that cannot be written does not matter.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"keep_in_memory": True, **kwargs})

    def _build_data_dir(self) -> str:
        # evaluate 0.4.6 makes a folder in its cache even for a metric that writes nothing.
        return self._data_dir_root if self.keep_in_memory else super()._build_data_dir()
