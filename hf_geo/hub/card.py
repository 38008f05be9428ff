"""Model cards: Jinja templates filled strictly, values that cannot break out of Markdown, HTML or YAML."""

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData, constants

import hf_geo
from hf_geo.checkpoints.placing import whole_file
from hf_geo.resources import resource_folder
from hf_geo.runs.report import RunReport

# The start of a line that Markdown takes for a heading, a list or a rule.
_BLOCK = re.compile(r"^(?:#+(?=\s|$)|[+-](?=[\s-]|$)|=+$|\d{1,9}(?=[.)](?:\s|$)))")
OWN_LICENSE = "apache-2.0"  # of weights that were trained from scratch
SUBSPACE_TAGS = ("neural-network-subspace", "arxiv:2102.10472")
VERSIONED = ("torch", "transformers", "accelerate", "datasets", "evaluate", "timm", "huggingface_hub")


def one_line(value: Any) -> str:
    """Returns one printable line: no line breaks, no control characters, none that turn the direction of writing."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def plain_text(value: Any) -> str:
    """Returns one line in which Markdown, HTML, LaTeX and mentions of people mean nothing."""
    line = one_line(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    line = re.sub(r"([\\`*_{}\[\]|~$])", r"\\\1", line)
    return _BLOCK.sub(lambda start: "".join(f"&#{ord(c)};" for c in start[0]), line)


def inline_code(value: Any) -> str:
    """Returns a code span of one line, safe in a table too; backticks inside become quotes."""
    return "`" + (one_line(value).replace("`", "'").replace("|", "\\|") or " ") + "`"


def render_card(template: str, metadata: ModelCardData, fields: Mapping[str, Any]) -> str:
    """Fills a template of `model_card_templates/`.

    Args:
        template: File name, such as "vision.md.jinja".
        metadata: The card's YAML front matter.
        fields: Values for the names in the template.

    Returns:
        The card's whole text.

    Raises:
        jinja2.UndefinedError: The template uses a name that `fields` lacks.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_folder("model_card_templates")),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: values go through the filters below instead
    )
    environment.filters |= {"text": plain_text, "code": inline_code}
    return environment.get_template(template).render(metadata=metadata.to_yaml(), **fields)


def installed_versions() -> dict[str, str]:
    """Returns the releases of the packages that a run depends on, by name."""
    return {"hf_geo": hf_geo.__version__} | {package: version(package) for package in VERSIONED}


def model_index(
    task: str, dataset_id: str | None, dataset: str, split: str, values: Mapping[str, float | None]
) -> list[EvalResult] | None:
    """Returns measured values as a card's `model-index`; None without any that is finite, since the Hub takes no other."""
    place = {"dataset_type": dataset_id or dataset, "dataset_name": dataset, "dataset_split": split}
    return [
        EvalResult(task_type=task, metric_type=metric, metric_name=metric, metric_value=float(value), **place)
        for metric, value in values.items()
        if value is not None
    ] or None


def card_metadata(report: RunReport, thumbnail: str | None = None) -> ModelCardData:
    """Returns the front matter of a card, with the measured results as its `model-index`.

    Args:
        report: What was done and measured.
        thumbnail: A picture in the folder, which the Hub shows of a repository whose name is known.
    """
    name, dataset = one_line(report.name) or "model", one_line(report.dataset_name) or "data"
    final = report.results.get(report.final_split, {})
    tags = ["hf_geo", report.optimizer]
    tags += [f"arxiv:{report.paper['arxiv']}"] if report.paper else []
    return ModelCardData(
        model_name=name,
        eval_results=model_index(report.task, report.dataset_id, dataset, report.final_split, final),
        license=report.fields.get("license") if report.fields.get("pretrained") else OWN_LICENSE,
        library_name=report.library,
        pipeline_tag=report.task,
        tags=[*tags, *(SUBSPACE_TAGS if report.subspace else ())],
        datasets=[report.dataset_id] if report.dataset_id else None,
        base_model=report.base_model,
        metrics=list(final),
        thumbnail=f"{constants.ENDPOINT}/{report.hub_id}/resolve/main/{thumbnail}"
        if report.hub_id and thumbnail
        else None,
        widget=None if (example := report.fields.get("widget")) is None else [{"text": one_line(example)}],
    )


def write_card(folder: str | Path, report: RunReport, *, figures: Mapping[str, str], fields: Mapping[str, Any]) -> None:
    """Writes `README.md` into `folder`.

    Args:
        folder: The run's folder.
        report: What was done and measured. Templates name its fields, with numbers written out.
        figures: Pictures, as paths inside the folder, with their captions.
        fields: Further names for the template.
    """
    seconds = round(report.seconds)
    values = {
        **vars(report),
        "split": report.final_split,
        "results": [
            {"name": metric, "shown": report.shown(metric)} for metric in report.results.get(report.final_split, {})
        ],
        "evaluated_on": report.evaluated_on,
        "figures": [{"path": path, "caption": caption} for path, caption in figures.items()],
        "dataset": report.dataset_name,
        "steps": f"{report.steps:,}",
        "epochs": f"{report.epochs:.3g}",
        "train_samples": f"{report.samples['train']:,}" if report.samples.get("train") else None,
        "duration": f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s",
        "parameters": f"{report.parameters:,}",
        "has_statistics": True,
        "brings_code": False,  # of a run whose report is older than these fields
        **report.fields,
        **fields,
    }
    card = render_card(report.template, card_metadata(report, next(iter(figures), None)), values)
    with whole_file(Path(folder, "README.md")) as path:
        path.write_text(card, encoding="utf-8")
