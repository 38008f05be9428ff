"""Finds what a model's name points to: timm's registry, a folder, or the Hub."""

import difflib
import json
import logging
import os
import pickle
import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
import yaml
from huggingface_hub import metadata_load, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, StrictDataclassError
from safetensors import SafetensorError
from timm.models import load_state_dict
from transformers import PreTrainedModel

from hf_geo.hub.downloads import download

logger = logging.getLogger(__name__)

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What the libraries raise over files that are broken, malicious or of another kind.
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, EOFError)
_UNREADABLE += (SafetensorError, StrictDataclassError, pickle.UnpicklingError)


def _are_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))


# The entries of a config.json that this package itself reads, and whether a value of theirs can be used.
_ENTRIES = {
    "model_args": lambda value: value is None or isinstance(value, dict),
    "architectures": _are_names,
    "label_names": _are_names,
    "id2label": lambda value: value is None or (isinstance(value, dict) and all(map(str.isdecimal, value))),
    "num_labels": lambda value: value is None or isinstance(value, int),
}


def timm_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns weights under timm's own names, without the prefix of transformers' wrapper."""
    return {name.removeprefix("timm_model."): tensor for name, tensor in weights.items()}


@dataclass(frozen=True)
class ModelSource:
    """A model's origin.

    Args:
        kind: "timm" is an architecture of timm's registry; "folder" and "hub" hold a `config.json` and weights.
        name: The architecture, path or Hub id without any prefix.
        config: Contents of `config.json`; empty for "timm".
    """

    kind: Literal["timm", "folder", "hub"]
    name: str
    config: dict[str, Any]

    @property
    def architecture(self) -> str | None:
        """The timm architecture; None for a model of transformers."""
        return self.name if self.kind == "timm" else self.config.get("architecture")

    @property
    def model_args(self) -> dict[str, Any]:
        """The stored arguments of a timm architecture, without `num_classes`."""
        stored = self.config.get("model_args") or {}
        return {k: v for k, v in stored.items() if v is not None and k != "num_classes"}

    @property
    def license(self) -> str | None:
        """The licence of the weights, as far as it is known on this machine."""
        if self.kind == "timm":
            return getattr(timm.get_pretrained_cfg(self.name), "license", None)
        return read_license(self.name)

    def has_file(self, name: str) -> bool:
        """Whether the folder or repository holds a file."""
        return self.find_file(name) is not None

    def weights(self) -> dict[str, torch.Tensor]:
        """Reads the stored weights under timm's names, in whichever format they were saved; unpickles only tensors.

        Raises:
            ValueError: There are none, or the file is damaged or holds more than weights.
        """
        file = next(filter(None, map(self.find_file, _WEIGHTS)), None)
        if file is None:
            raise ValueError(
                f"The model {self.name!r} has no weights, neither {' nor '.join(_WEIGHTS)}: give a folder or id that has."
            )
        try:
            return timm_names(load_state_dict(str(file), weights_only=True))
        except _UNREADABLE as error:
            if file.suffix == ".safetensors":
                problem = "is damaged or cut short: copy or download it again"
            else:
                problem = "is no pickle of weights alone, and others could run code: convert it to model.safetensors"
            raise ValueError(f"{str(file)!r} {problem} ({textwrap.shorten(str(error), 200)}).") from error

    def find_file(self, name: str) -> Path | None:
        """The path of a file, downloaded if the model is on the Hub; None if there is no such file."""
        if self.kind == "hub":
            try:
                return Path(download(self.name, name))
            except EntryNotFoundError:
                return None
        path = Path(self.name, name)
        return path if path.is_file() else None


def find_model(name: str | None) -> ModelSource:
    """Finds the model that `name` points to, and reads the `config.json` of a folder or Hub id.

    Args:
        name: A timm architecture, with or without a tag (`resnet18.a1_in1k`); `local-dir:PATH` or a folder; `hf-hub:ID`
            or a Hub id.

    Raises:
        ValueError: There is no such model (the nearest names are given), or the Hub cannot be reached.
    """
    if not name:
        raise ValueError("No model is named: give a timm architecture, a folder or a Hub id, as in --model resnet18.")
    prefix, _, rest = name.partition(":")
    on_hub = prefix in ("hf-hub", "hf_hub")
    if prefix == "local-dir" or (os.path.isdir(name) and not timm.is_model(name)):
        return _open_folder(Path(rest if prefix == "local-dir" else name))
    if on_hub or (name.count("/") == 1 and not name.startswith((".", "/", "~"))):
        return _open_repository(rest if on_hub else name)
    if timm.is_model(name):
        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:
            raise ValueError(f"Unknown model {name!r}: {str(error).rstrip('.')}; leave the tag out.") from error
        return ModelSource("timm", name, {})
    if "/" in name:
        raise ValueError(f"There is no folder {name!r} to load a model from: look whether its path is right.")
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4) or timm.list_models(f"*{name}*")[:3]
    hint = f" Nearest: {', '.join(near)}." if near else ""
    raise ValueError(f"Unknown model {name!r}: it is no timm architecture, folder or Hub id.{hint}")


def _open_folder(path: Path) -> ModelSource:
    if not (path / "config.json").is_file():
        raise ValueError(
            f"The folder {str(path)!r} holds no model, as there is no config.json in it: give the folder of a trained one."
        )
    _check_shards(path)
    return ModelSource("folder", str(path), _read_config(path / "config.json"))


def _open_repository(repository: str) -> ModelSource:
    try:
        config = _read_config(Path(download(repository, "config.json")))
    except EntryNotFoundError as error:
        raise ValueError(f"The Hub's {repository!r} holds no model: there is no config.json in it.") from error
    return ModelSource("hub", repository, config)


def _check_shards(folder: Path) -> None:
    """Raises `ValueError` if an index of weights leads out of its folder or cannot be read."""
    for index in folder.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{str(index)!r} is no index of weights ({error!r}): copy or download it again."
            ) from error
        outside = sorted(str(name) for name in shards if Path(str(name)).name != name)
        if outside:
            raise ValueError(f"{str(index)!r} leads to {outside[0]!r}, out of its folder: do not trust this model.")


def _read_config(path: Path) -> dict[str, Any]:
    """Reads a `config.json`, and checks the entries that this package uses.

    Raises:
        ValueError: It is no JSON object, an entry is of another kind than it should be, or its `architecture` is none of
            timm's: such a name could point anywhere.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not JSON ({error}): copy or download the model again.") from error
    if not isinstance(config, dict) or not all(fits(config.get(name)) for name, fits in _ENTRIES.items()):
        raise ValueError(f"{str(path)!r} does not describe a model by names and values: copy or download it again.")
    count = config.get("num_classes")
    if count is not None and (not isinstance(count, int) or count < 0):
        raise ValueError(f"{str(path)!r} names num_classes={count!r}: it is a number, 0 or more.")
    architecture = config.get("architecture")
    if architecture is not None and not (isinstance(architecture, str) and timm.is_model(architecture)):
        raise ValueError(
            f"{str(path)!r} is of the architecture {architecture!r}, which timm does not have: install the release it needs."
        )
    return config


def brings_code(model: PreTrainedModel) -> bool:
    """Whether the model's class comes from remote code, which an export copies."""
    return type(model).__module__.startswith("transformers_modules.")


def read_license(name: str) -> str | None:
    """The licence that a model's own card names; None where the card is not on this machine, or names none.

    Args:
        name: A folder or Hub id.
    """
    place = re.sub("^(local-dir|hf[-_]hub):", "", name)
    card = Path(place, "README.md")
    try:
        if not Path(place).is_dir():
            repository, _, revision = place.partition("@")
            card = try_to_load_from_cache(repository, "README.md", revision=revision or None)
        found = metadata_load(card).get("license")
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):  # no card, or none that the Hub would take
        return None
    return found if isinstance(found, str) and re.fullmatch(r"[a-z0-9.+-]+", found) else None


def warn_of_code(name: str | None) -> None:
    """Warns that Python code that a model brings along is run."""
    logger.warning("Python code that %r brings along is run, with all that you may do on this machine.", name)


@contextmanager
def opening(kind: str, name: str | None) -> Iterator[None]:
    """Turns the errors of transformers about a folder or Hub id into one sentence.

    Args:
        kind: The kind of thing to open, such as "image classifier".
        name: The folder or Hub id.

    Raises:
        ValueError: It cannot be opened, or needs Python code of its own that it may not run.
    """
    try:
        yield
    except _UNREADABLE as error:
        said = textwrap.shorten(str(error), 400) or type(error).__name__
        if "trust_remote_code" in said:
            raise ValueError(
                f"{name!r} brings Python code of its own, which is not run: read it, and if you trust it, give "
                "--trust_remote_code true."
            ) from error
        raise ValueError(f"transformers opens no {kind} from {name!r}: {said}") from error
