"""Adapters of PEFT: found by name, and opened on the model that they were trained for."""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import EntryNotFoundError
from torch import nn

from hf_geo.hub.downloads import download

from .sources import opening

CONFIG = "adapter_config.json"


def find_base(name: str) -> str | None:
    """The model that an adapter was trained for; None if `name` is a model of its own.

    Args:
        name: A folder or Hub id.

    Raises:
        ValueError: The Hub cannot be reached, or the adapter does not name its base.
    """
    if not _is_adapter(name):
        return None
    base = read_adapter(name).base_model_name_or_path
    if not base:
        raise ValueError(f"The adapter {name!r} does not name the model that it belongs to (base_model_name_or_path).")
    return base


def read_adapter(name: str) -> Any:
    """Reads an adapter's configuration, a `peft.PeftConfig`.

    Raises:
        ValueError: It cannot be read.
    """
    from peft import PeftConfig

    with opening("adapter", name):
        return PeftConfig.from_pretrained(name)


def open_adapter(base: nn.Module, name: str) -> nn.Module:
    """Puts an adapter on its base model, in place, with its weights trainable; returns PEFT's model around it.

    Raises:
        ValueError: The adapter does not fit the model.
    """
    from peft import PeftModel

    with opening("adapter", name):
        return PeftModel.from_pretrained(base, name, is_trainable=True)


def _is_adapter(name: str) -> bool:
    if Path(name).is_dir():
        return Path(name, CONFIG).is_file()
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        return False
    try:
        return bool(download(name, CONFIG))
    except (EntryNotFoundError, ValueError):
        return False  # a model, or a name that the search for models has a message for
