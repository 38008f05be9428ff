"""The `evaluate` library, even for a script that has an evaluate.py beside it, as those of this repository have."""

import sys
from pathlib import Path

_path = sys.path
# Python looks into the script's own folder first, where a file of that name would be taken for the library.
sys.path = [entry for entry in _path if not Path(entry, "evaluate.py").is_file()]
try:
    import evaluate
finally:
    sys.path = _path

__all__ = ["evaluate"]
