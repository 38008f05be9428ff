"""The card of networks that were merged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from hf_geo.checkpoints.placing import whole_file
from hf_geo.evaluation.report import as_table

from .card import installed_versions, model_index, one_line, render_card

SOUPS = {"title": "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time",
         "url": "https://arxiv.org/abs/2203.05482", "arxiv": "2203.05482"}  # fmt: skip
WISE_FT = {"title": "Robust fine-tuning of zero-shot models", "url": "https://arxiv.org/abs/2109.01903", "arxiv": "2109.01903"}  # fmt: skip
METHODS = {  # the method, the merged network in a sentence, and the paper
    "average": ("Model soup", "The weighted average of {parents}.", SOUPS),
    "greedy": ("Greedy soup", "The average of the best of {parents}: each joined if it made the average no worse on "
               "validation data.", SOUPS),
    "interpolate": ("WiSE-FT", "A point on the straight line between {parents}.", WISE_FT),
}  # fmt: skip


def write_merge_card(folder: Path, data: Mapping[str, Any]) -> None:
    """Writes `README.md` into the folder of a merged network.

    Args:
        folder: The folder.
        data: What merge.json holds.
    """
    name, dataset = one_line(data["name"]) or "model", one_line(data["dataset"]) or "data"
    method, sentence, paper = METHODS[data["method"]]
    merged = data["points"][-1]
    measured = {metric: merged[metric] for metric in (data["metric"], "loss")}
    base_models = data["base_models"]
    metadata = ModelCardData(
        model_name=name,
        eval_results=model_index(data["task"], data["dataset_id"], dataset, data["split"], measured),
        license=data["license"],
        library_name="peft" if data["adapter_of"] else data["library"],
        pipeline_tag=data["task"],
        tags=["hf_geo", "merge", f"arxiv:{paper['arxiv']}"],
        datasets=[data["dataset_id"]] if data["dataset_id"] else None,
        base_model=base_models or None,
        metrics=[data["metric"]],
        **({"base_model_relation": "merge"} if base_models else {}),
    )
    fields = {
        **data,
        "name": name,
        "description": sentence.format(
            parents=f"{len(data['parents'])} {'adapters' if data['adapter_of'] else 'networks'}"
        ),
        "method_name": method,
        "paper": paper,
        "table": as_table(data),
        "is_parent": any(parent["coefficient"] == 1 for parent in data["parents"]),
        "versions": installed_versions(),
        "figures": [{"path": path, "caption": caption} for path, caption in data["figures"].items()],
    }
    card = render_card("merge.md.jinja", metadata, fields)
    with whole_file(Path(folder, "README.md")) as path:
        path.write_text(card, encoding="utf-8")
