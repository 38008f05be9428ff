"""The Python that opens an exported network, as its `config.json` says."""

import json
from collections.abc import Mapping
from typing import Any


def loading_lines(config: Mapping[str, Any], name: str, timm_name: str, *, needs_hf_geo: bool = False) -> list[str]:
    """Lines that open an exported network, each by itself, the first by timm where it is one of timm's.

    Args:
        config: Contents of its `config.json`.
        name: Its folder or Hub id.
        timm_name: What timm calls this.
        needs_hf_geo: Whether timm knows the architecture only once hf_geo is imported.
    """
    if "pretrained_cfg" in config:
        start = "import hf_geo.models; " if needs_hf_geo else ""
        return [
            f"{start}timm.create_model({_quoted(timm_name)}, pretrained=True)",
            f"{start}transformers.AutoModelForImageClassification.from_pretrained({_quoted(name)})",
        ]
    architecture = (config.get("architectures") or ["AutoModel"])[0]
    # Which Auto class opens which class of code that comes with the network, or of another repository ("ID--FILE.CLASS").
    brought = {
        auto: code for auto, code in (config.get("auto_map") or {}).items() if auto.startswith("AutoModel") and code
    }
    if any("--" in str(code) for code in brought.values()) and _is_native(architecture):
        brought = {}
    auto = next((auto for auto, code in brought.items() if str(code).endswith(f".{architecture}")), None)
    if auto is None:
        return [f"transformers.{architecture}.from_pretrained({_quoted(name)})"]
    return [f"transformers.{auto}.from_pretrained({_quoted(name)}, trust_remote_code=True)"]


def _is_native(architecture: str) -> bool:
    """Whether transformers has a class of that name."""
    import transformers  # here, because it takes seconds

    return architecture in dir(transformers)


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
