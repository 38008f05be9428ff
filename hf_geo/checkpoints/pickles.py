"""Finds code in the pickled files of a checkpoint without running it."""

import pickle
import zipfile
from pathlib import Path

from torch.serialization import get_unsafe_globals_in_checkpoint
from transformers.trainer_pt_utils import safe_globals

_PICKLED = (".pt", ".pth", ".bin")
_NEVER_LOADED = "training_args.bin"  # transformers writes it and reads nothing from it


def code_in(folder: str | Path) -> str | None:
    """Says which pickled file of a checkpoint holds code, as part of a sentence; None if all hold tensors and numbers only."""
    with safe_globals():
        for path in sorted(path for path in Path(folder).iterdir() if path.suffix in _PICKLED):
            if path.name == _NEVER_LOADED:
                continue
            try:
                found = sorted(set(get_unsafe_globals_in_checkpoint(path)))
            except (ValueError, RuntimeError, EOFError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
                return f"{path.name} is no file of tensors ({' '.join(str(error).split()) or type(error).__name__})"
            if found:
                return f"{path.name} holds code that loading it would run ({', '.join(found)})"
    return None
