"""Exports a network as plain weights and a configuration that timm and transformers open without hf_geo."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel, TimmWrapperForImageClassification

from hf_geo.models.sources import timm_names


def export_model(
    model: PreTrainedModel,
    folder: str | Path,
    *,
    processor: object | None = None,
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Writes `model.safetensors` and `config.json` (and the processor's files) into `folder`.

    A network of timm is written so that `timm.create_model("local-dir:FOLDER", pretrained=True)` and
    `AutoModelForImageClassification.from_pretrained(FOLDER)` both open it; any other by its own `save_pretrained`.

    Args:
        model: The trained network, unwrapped.
        folder: Created if missing.
        processor: An image processor or tokenizer to save along.
        state_dict: Weights to write instead of the model's own, under the model's names.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, TimmWrapperForImageClassification):
        _export_timm(model, folder, model.state_dict() if state_dict is None else state_dict)
    else:
        model.save_pretrained(folder, state_dict=None if state_dict is None else dict(state_dict))
        if processor is not None:
            processor.save_pretrained(folder)


def _export_timm(
    model: TimmWrapperForImageClassification, folder: Path, state_dict: Mapping[str, torch.Tensor]
) -> None:
    # timm wants the keys without the wrapper's prefix, `pretrained_cfg`, and `model_args` as a mapping; transformers
    # reads such keys too, but fails on a `num_classes` inside `model_args`.
    weights = {
        # A copy each: safetensors stores no tensor under two names, as the modules of a CoaT share some.
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in timm_names(state_dict).items()
    }
    config = model.config.to_dict()
    config.pop("_name_or_path", None)  # where the model came from may be a folder of this machine
    config["architectures"] = [type(model).__name__]
    config["num_classes"] = model.config.num_labels
    config["model_args"] = {k: v for k, v in (config.get("model_args") or {}).items() if k != "num_classes"}
    config["pretrained_cfg"] = {
        k: v for k, v in config["pretrained_cfg"].items() if k not in ("num_classes", "label_names")
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
