"""Where a model's name points: timm's registry, a folder, or the Hub."""

import difflib
import json
import logging
import os
import pickle
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, StrictDataclassError
from safetensors import SafetensorError
from timm.models import load_state_dict

logger = logging.getLogger(__name__)

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What the libraries raise over files that are broken, hostile or of another kind.
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, EOFError)
_UNREADABLE += (SafetensorError, StrictDataclassError, pickle.UnpicklingError)


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
        """The timm architecture; None for a model of transformers' own."""
        return self.name if self.kind == "timm" else self.config.get("architecture")

    @property
    def model_args(self) -> dict[str, Any]:
        """The arguments that a timm architecture was made with, as stored; `num_classes` is not among them."""
        stored = self.config.get("model_args") or {}
        return {k: v for k, v in stored.items() if v is not None and k != "num_classes"}

    def has_file(self, name: str) -> bool:
        """Whether the folder or repository holds a file."""
        path = self._download(name) if self.kind == "hub" else Path(self.name, name)
        return path is not None and path.is_file()

    def weights(self) -> dict[str, torch.Tensor]:
        """The stored weights under timm's names, however they were saved. Nothing but tensors is unpickled.

        Raises:
            ValueError: There are none, or the file is damaged or holds more than weights.
        """
        file = self._weights_file()
        try:
            weights = load_state_dict(str(file), weights_only=True)
            return {name.removeprefix("timm_model."): tensor for name, tensor in weights.items()}
        except _UNREADABLE as error:
            if file.suffix == ".safetensors":
                problem = "is damaged or cut short: copy or download it again"
            else:
                problem = (
                    "is no pickle of weights alone, and anything else could run code: convert it to model.safetensors"
                )
            raise ValueError(f"{str(file)!r} {problem} ({textwrap.shorten(str(error), 200)}).") from error

    def _weights_file(self) -> Path:
        for name in _WEIGHTS:
            path = self._download(name) if self.kind == "hub" else Path(self.name, name)
            if path is not None and path.is_file():
                return path
        raise ValueError(
            f"The model {self.name!r} has no weights, neither {' nor '.join(_WEIGHTS)}: give a folder or id that has."
        )

    def _download(self, filename: str) -> Path | None:
        try:
            return Path(download(self.name, filename))
        except EntryNotFoundError:
            return None


def find_model(name: str | None) -> ModelSource:
    """Tells what `name` names, reading the `config.json` of a folder or Hub id.

    Args:
        name: A timm architecture, with or without a tag (`resnet18.a1_in1k`); `local-dir:PATH` or a folder; `hf-hub:ID`
            or a Hub id.

    Raises:
        ValueError: There is no such model (the nearest names are given), or the Hub cannot be reached.
    """
    if not name:
        raise ValueError("No model is named: give a timm architecture, a folder or a Hub id, as in --model resnet18.")
    prefix, _, rest = name.partition(":")
    if prefix == "local-dir" or (os.path.isdir(name) and not timm.is_model(name)):
        path = Path(rest if prefix == "local-dir" else name)
        if not (path / "config.json").is_file():
            raise ValueError(
                f"The folder {str(path)!r} holds no model, as there is no config.json in it: give the folder of a trained one."
            )
        _check_shards(path)
        return ModelSource("folder", str(path), _read_config(path / "config.json"))
    if prefix in ("hf-hub", "hf_hub") or _is_hub_id(name):
        repository = rest if prefix in ("hf-hub", "hf_hub") else name
        try:
            config = _read_config(Path(download(repository, "config.json")))
        except EntryNotFoundError as error:
            raise ValueError(f"The Hub's {repository!r} holds no model: there is no config.json in it.") from error
        return ModelSource("hub", repository, config)
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


def _check_shards(folder: Path) -> None:
    """Raises `ValueError` for an index of weights that leads out of its folder, or that cannot be read."""
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
    """A `config.json`, as far as this package goes by it.

    Raises:
        ValueError: It is no mapping in JSON, or its `architecture` is none of timm's: such a name could point anywhere.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not JSON ({error}): copy or download the model again.") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_args") or {}, dict):
        raise ValueError(f"{str(path)!r} does not describe a model by names and values: copy or download it again.")
    architecture = config.get("architecture")
    if architecture is not None and not (isinstance(architecture, str) and timm.is_model(architecture)):
        raise ValueError(
            f"{str(path)!r} is of the architecture {architecture!r}, which timm does not have: install the release it needs."
        )
    return config


def warn_of_code(name: str | None) -> None:
    """Says that a model's own Python code is run."""
    logger.warning("Python code that %r brings along is run, with all that you may do on this machine.", name)


@contextmanager
def opening(what: str, name: str | None) -> Iterator[None]:
    """Turns what transformers raises over a folder or Hub id into one sentence.

    Args:
        what: What is opened, as in "an image classifier".
        name: Where it is opened from.

    Raises:
        ValueError: It cannot be opened, or needs code of its own that it may not run.
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
        raise ValueError(f"transformers opens no {what} from {name!r}: {said}") from error


def download(repository: str, filename: str) -> str:
    """Path of a file of the Hub (`ID` or `ID@REVISION`), fetched if it is not in the cache.

    Raises:
        ValueError: The Hub cannot be reached, there is no such repository, or it may not be read.
        EntryNotFoundError: The repository has no such file.
    """
    repository, _, revision = repository.partition("@")
    try:
        return hf_hub_download(repository, filename, revision=revision or None)
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"{repository!r} is no folder here, and the Hub cannot be reached to look for it there: check the network, "
            "or give the folder that holds the model."
        ) from error
    except EntryNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"The Hub gives no model {repository!r}: {' '.join(str(error).split())}") from error


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))
