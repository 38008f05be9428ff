"""Model cards: Jinja templates filled strictly, values that cannot break out of Markdown, HTML or YAML."""

import math
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

import hf_geo
from hf_geo.checkpoints.placing import whole_file
from hf_geo.runs.report import RunReport

# What begins a heading, a list or a rule where it begins a line.
_BLOCK = re.compile(r"^(?:#+(?=\s|$)|[+-](?=[\s-]|$)|=+$|\d{1,9}(?=[.)](?:\s|$)))")
SUBSPACE_TAGS = ("neural-network-subspace", "arxiv:2102.10472")
VERSIONED = ("torch", "transformers", "accelerate", "datasets", "evaluate", "timm", "huggingface_hub")


def template_folder() -> Path:
    """Where the card templates are: inside the installed package, or beside it in a source checkout.

    Raises:
        RuntimeError: Neither place has them: the installation is broken.
    """
    package = Path(hf_geo.__file__).parent
    for folder in (package / "model_card_templates", package.parent / "model_card_templates"):
        if (folder / "base.md.jinja").is_file():
            return folder
    raise RuntimeError(f"The model card templates are missing beside {package.name}: install the package again.")


def one_line(value: Any) -> str:
    """One line of what can be printed: no line breaks, no control characters, none that turn the direction of writing."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def plain_text(value: Any) -> str:
    """One line in which Markdown, HTML, LaTeX and mentions of people mean nothing."""
    line = one_line(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    line = re.sub(r"([\\`*_{}\[\]|~$])", r"\\\1", line)
    return _BLOCK.sub(lambda start: "".join(f"&#{ord(c)};" for c in start[0]), line)


def inline_code(value: Any) -> str:
    """A code span of one line, safe in a table too; backticks inside are replaced by quotes."""
    return "`" + (one_line(value).replace("`", "'").replace("|", "\\|") or " ") + "`"


def render_card(template: str, metadata: ModelCardData, fields: Mapping[str, Any]) -> str:
    """Fills a template of `model_card_templates/`.

    Args:
        template: File name, such as "vision.md.jinja".
        metadata: The card's YAML front matter.
        fields: What the template names; a name it uses and this lacks is an error.

    Returns:
        The card's whole text.

    Raises:
        jinja2.UndefinedError: The template uses a name that `fields` lacks.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_folder()),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: values go through the filters below instead
    )
    environment.filters |= {"text": plain_text, "code": inline_code}
    return environment.get_template(template).render(metadata=metadata.to_yaml(), **fields)


def installed_versions() -> dict[str, str]:
    """Releases of the packages that a run depends on, by name."""
    return {"hf_geo": hf_geo.__version__} | {package: version(package) for package in VERSIONED}


def card_metadata(
    *,
    name: str,
    task: str,
    tags: list[str],
    dataset_name: str,
    dataset_id: str | None,
    split: str,
    results: Mapping[str, float | None],
    library: str,
    base_model: str | None = None,
) -> ModelCardData:
    """The front matter of a card, with the measured results as its `model-index`.

    Args:
        name: The model's name.
        task: The Hub's task, such as "image-classification".
        tags: Further tags.
        dataset_name: The data set as people call it.
        dataset_id: Its Hub id; None where it has none.
        split: The split the results were measured on.
        results: Metric name -> value; values become plain floats, and those that are not finite are left out.
        library: What opens the model first: "timm" or "transformers".
        base_model: Hub id of the pretrained weights, if any.
    """
    name, dataset_name = one_line(name) or "model", one_line(dataset_name) or "data"
    measured = [
        EvalResult(
            task_type=task,
            dataset_type=dataset_id or dataset_name,
            dataset_name=dataset_name,
            dataset_split=split,
            metric_type=metric,
            metric_name=metric,
            metric_value=float(value),
        )
        for metric, value in results.items()
        if value is not None and math.isfinite(value)  # the Hub takes no other number
    ]
    return ModelCardData(
        model_name=name,
        eval_results=measured or None,
        license="apache-2.0",
        library_name=library,
        pipeline_tag=task,
        tags=["hf_geo", *tags],
        datasets=[dataset_id] if dataset_id else None,
        base_model=base_model,
        metrics=list(results),
    )


def write_card(folder: str | Path, report: RunReport, *, figures: Mapping[str, str], fields: Mapping[str, Any]) -> None:
    """Writes `README.md` into `folder`.

    Args:
        folder: The run's folder.
        report: What was done and measured.
        figures: Pictures, as paths inside the folder, with their captions.
        fields: What the template names besides what is in the report.
    """
    paper = report.paper
    final = report.results.get(report.final_split, {})
    metadata = card_metadata(
        name=report.name,
        task=report.task,
        tags=[
            report.optimizer,
            *([f"arxiv:{paper['arxiv']}"] if paper else []),
            *(SUBSPACE_TAGS if report.subspace else ()),
        ],
        dataset_name=report.dataset_name,
        dataset_id=report.dataset_id,
        split=report.final_split,
        results=final,
        library=report.library,
        base_model=report.base_model,
    )
    seconds = round(report.seconds)
    card = render_card(
        report.template,
        metadata,
        {
            "name": report.name,
            "split": report.final_split,
            "results": [{"name": metric, "shown": report.shown(metric)} for metric in final],
            "evaluated_on": report.evaluated_on,
            "figures": [{"path": path, "caption": caption} for path, caption in figures.items()],
            "settings": report.settings,
            "optimizer": report.optimizer,
            "subspace": report.subspace,
            "paper": paper,
            "dataset": report.dataset_name,
            "steps": f"{report.steps:,}",
            "epochs": f"{report.epochs:.3g}",
            "train_samples": f"{report.samples['train']:,}" if report.samples.get("train") else None,
            "duration": f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s",
            "hardware": report.hardware,
            "parameters": f"{report.parameters:,}",
            "versions": report.versions,
            "library": report.library,
            "hub_id": report.hub_id,
            **report.fields,
            **fields,
        },
    )
    with whole_file(Path(folder, "README.md")) as path:
        path.write_text(card, encoding="utf-8")
