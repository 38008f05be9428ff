"""Where a model's name points: timm's registry, a folder, or the Hub."""

import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from timm.models import load_state_dict

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


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

    def weights(self) -> dict[str, torch.Tensor]:
        """The stored weights under timm's names, however they were saved."""
        return {k.removeprefix("timm_model."): v for k, v in load_state_dict(str(self._weights_file())).items()}

    def _weights_file(self) -> Path:
        for name in _WEIGHTS:
            path = self._download(name) if self.kind == "hub" else Path(self.name, name)
            if path is not None and path.is_file():
                return path
        raise ValueError(f"The model {self.name!r} has no weights: neither {' nor '.join(_WEIGHTS)} is there.")

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
            raise ValueError(f"The folder {str(path)!r} holds no model: there is no config.json in it.")
        return ModelSource("folder", str(path), json.loads((path / "config.json").read_text(encoding="utf-8")))
    if prefix in ("hf-hub", "hf_hub") or _is_hub_id(name):
        repository = rest if prefix in ("hf-hub", "hf_hub") else name
        try:
            config = Path(download(repository, "config.json")).read_text(encoding="utf-8")
        except EntryNotFoundError as error:
            raise ValueError(f"The Hub's {repository!r} holds no model: there is no config.json in it.") from error
        return ModelSource("hub", repository, json.loads(config))
    if timm.is_model(name):
        return ModelSource("timm", name, {})
    if "/" in name:
        raise ValueError(f"There is no folder {name!r} to load a model from.")
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4) or timm.list_models(f"*{name}*")[:3]
    hint = f" Nearest: {', '.join(near)}." if near else ""
    raise ValueError(f"Unknown model {name!r}: it is no timm architecture, folder or Hub id.{hint}")


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
