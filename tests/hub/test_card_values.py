"""No value breaks out of a model card: its Markdown, HTML and YAML are built alike whatever the values say."""

import json
import math
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from hf_geo.hub.card import card_metadata, inline_code, installed_versions, plain_text, write_card
from hf_geo.hub.describe import describe
from hf_geo.models.sources import ModelSource
from hf_geo.runs.report import RunReport, read_report, write_measured, write_results
from tests.local_hub.cards import FRONT_MATTER, problems

NASTY = [
    "---", "a\n---\nb", "---\nlicense: other\n---", "`", "```", "a```\n```python\nevil()", "<script>alert(1)</script>", "</details>",
    "<!-- x", "a | b | c", "|---|---|", "[x](javascript:alert(1))", "![x](http://evil)", "# heading", "> quote", "* item", "- item",
    "1. item", "a\r\nb", "a\u2028b\x85c", "\x00\x1b[31m", "\u202eevil", "{{ 1234 * 7 }}", "{% raw %}", "{{ metadata }}", "'\"", "\\", "\\n",
    "&lt;script&gt;", "$x$", "a: b", "!!python/object/apply:os.system [id]", "*alias", "&anchor", "null", "@everyone", "\udcff", "=====",
    "    indented", "\ttab", "~~~", "x" * 3000, "",
]  # fmt: skip
TEMPLATES = {
    "vision.md.jinja": {
        "architecture": "resnet18", "pretrained": False, "classes": 10, "image_size": [3, 32, 32], "image_mode": "RGB", "needs_hf_geo": True,
        "data_description": "All of it.",
    },
    "language.md.jinja": {
        "architecture": "gpt2", "pretrained": True, "needs_hf_geo": True, "vocabulary": "100", "data_description": "All of it.",
        "measured": "per word", "prompt": "Once", "widget": "Once", "new_tokens": 60, "sample": "Once upon a time",
    },
}  # fmt: skip


def report_of(**values) -> RunReport:
    ordinary = {
        "name": "model", "task": "image-classification", "metric": "accuracy", "optimizer": "fromage", "dataset_name": "digits",
        "dataset_id": None, "results": {"test": {"accuracy": 0.5, "loss": 1.0}}, "samples": {"train": 10, "test": 5}, "settings": {},
        "steps": 3, "epochs": 1.0, "seconds": 2.0, "hardware": "2 CPU cores", "parameters": 10, "versions": installed_versions(),
        "library": "timm",
    }  # fmt: skip
    return RunReport(**{**ordinary, **values})


def card_of(folder, template: str, value: str | None = None) -> str:
    """A card with ordinary values, or with `value` in every place where a user's or a file's text can be."""

    def text(ordinary: str) -> str:
        return ordinary if value is None else value

    report = report_of(
        name=text("model"),
        dataset_name=text("digits"),
        settings={"model": text("resnet18"), "optim_args": text("p_bound=1")},
        hardware=text("2 CPU cores"),
        template=template,
        fields={key: text(known) if isinstance(known, str) else known for key, known in TEMPLATES[template].items()},
        subspace={"kind": "line", "num_points": 2, "layerwise": False},
    )
    write_card(folder, report, figures={"figures/training.png": text("Loss")}, fields={})
    return (folder / "README.md").read_text(encoding="utf-8")


def shape(card: str) -> list[tuple[str, int]]:
    """What Markdown sees of a card: its lines by kind, and how many cells the rows of tables have."""
    kinds = [("---", r"---$"), ("fence", r"\s*(```|~~~)"), ("heading", r"#+ "), ("quote", r">"), ("picture", r"!\["), ("row", r"\|"),
             ("item", r"\s*([-*+]|\d+[.)])(\s|$)"), ("setext", r"=+\s*$")]  # fmt: skip
    body = card[FRONT_MATTER.match(card).end() :]
    found = []
    for line in body.splitlines():
        kind = next((kind for kind, pattern in kinds if re.match(pattern, line)), "text" if line.strip() else "")
        found.append((kind, len(re.findall(r"(?<!\\)\|", line)) if kind == "row" else 0))
    return found


def keys(data) -> object:
    """A card's metadata without its values."""
    if isinstance(data, dict):
        return {key: keys(value) for key, value in data.items()}
    return [keys(value) for value in data] if isinstance(data, list) else type(data).__name__


def check(card: str, ordinary: str) -> None:
    assert shape(card) == shape(ordinary)
    data = yaml.safe_load(FRONT_MATTER.match(card)[1])
    assert keys(data) == keys(yaml.safe_load(FRONT_MATTER.match(ordinary)[1]))
    expected = "apache-2.0" if "trained from scratch" in ordinary else None
    assert (data.get("license"), data["tags"][0]) == (expected, "hf_geo")
    assert ModelCard(card).data.to_dict().get("license") == expected
    assert problems(card) == ([], [])
    blocks_out = re.sub(r"^```.*?^```", "", card[FRONT_MATTER.match(card).end() :], flags=re.S | re.M)
    outside_code = re.sub(r"`[^`\n]*`", "", blocks_out)
    assert not re.search(r"<(?!https?:)[a-z/!]", outside_code, re.I)
    assert "](javascript" not in outside_code.replace("\\]", "") and "8638" not in card
    assert all(char.isprintable() or char == "\n" for char in card)


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_value_breaks_out(template: str, tmp_path) -> None:
    ordinary = card_of(tmp_path, template)
    for value in NASTY:
        check(card_of(tmp_path, template, value), ordinary)


@given(value=st.text(st.characters() | st.sampled_from("\n\r\t-`|<>[]()#*_~\\{}%!&:'\""), max_size=30))
def test_nor_does_any_other(value: str, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("card")
    check(card_of(folder, "language.md.jinja", value), card_of(folder, "language.md.jinja"))


def test_a_card_links_its_data_its_origin_and_a_thumbnail(tmp_path) -> None:
    report = report_of(
        dataset_id="ada/data", base_model="timm/resnet18", hub_id="ada/run", template="vision.md.jinja",
        fields=TEMPLATES["vision.md.jinja"],
    )  # fmt: skip
    write_card(tmp_path, report, figures={"figures/training.png": "Loss"}, fields={})
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "from [timm/resnet18](https://huggingface.co/timm/resnet18)" in card
    assert "on [digits](https://huggingface.co/datasets/ada/data)" in card
    data = yaml.safe_load(FRONT_MATTER.match(card)[1])
    assert data["thumbnail"].endswith("/ada/run/resolve/main/figures/training.png")
    assert (data["base_model"], data["datasets"], "widget" in data) == ("timm/resnet18", ["ada/data"], False)


@pytest.mark.parametrize(
    ("card", "fields", "licence"),
    [
        ("", {"pretrained": False}, "apache-2.0"),
        ("---\nlicense: mit\n---\n", {"pretrained": True}, "mit"),
        ("---\nlicense: mit\n---\n", {"pretrained": False}, "apache-2.0"),
        ("# No front matter", {"pretrained": True}, None),
        ("---\nlicense: [mit\n---\n", {"pretrained": True}, None),
        ("---\nlicense: 'mine: all'\n---\n", {"pretrained": True}, None),
    ],
)
def test_weights_have_the_licence_of_those_they_come_from(tmp_path, card: str, fields: dict, licence) -> None:
    (tmp_path / "README.md").write_text(card)
    source = ModelSource("folder", str(tmp_path), {})
    report = report_of(template="", fields={**fields, "license": source.license})
    assert card_metadata(report).license == licence


def test_a_subspace_without_norm_statistics_says_nothing_of_them(tmp_path) -> None:
    for has_statistics in (True, False):
        fields = {**TEMPLATES["vision.md.jinja"], "has_statistics": has_statistics}
        line = {"kind": "line", "num_points": 2, "layerwise": False}
        report = report_of(template="vision.md.jinja", fields=fields, subspace=line)
        write_card(tmp_path, report, figures={}, fields={})
        assert (tmp_path / "README.md").read_text().count("norm statistics") == 2 * has_statistics


@pytest.mark.parametrize("text", ["{", "[]", '{"points": []}'])
def test_a_damaged_evaluation_is_named(tmp_path, text: str) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(ValueError, match="holds no evaluation"):
        describe(tmp_path)


def test_ordinary_values_stay_as_they_are() -> None:
    for value in ("97.22 %", "-0.5", "12 min 3 s", "2 CPU cores", "1.5"):
        assert plain_text(value) == value and inline_code(value) == f"`{value}`"
    report = report_of(results={"test": {"f1": 0.5, "loss": 0.25}}, template="", fields={})
    assert (report.shown("f1"), report.shown("loss")) == ("50.00 %", "0.25")


def test_results_are_standard_json_and_cards_name_finite_figures(tmp_path) -> None:
    lost = {"loss": math.nan, "history": [{"norm": math.inf, "step": 1}, -math.inf], "accuracy": 0.1, "words": "nan"}
    write_results(tmp_path, eval_results=lost)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads((tmp_path / "eval_results.json").read_text(), parse_constant=refuse)
    assert found == {"loss": None, "history": [{"norm": None, "step": 1}, None], "accuracy": 0.1, "words": "nan"}
    results, template = {"eval": {"perplexity": math.inf, "loss": 2.0}}, "language.md.jinja"
    of_text = {"task": "text-generation", "metric": "perplexity", "library": "transformers"}
    report = report_of(results=results, template=template, fields=TEMPLATES[template], **of_text)
    write_measured(tmp_path, report, {}, {})
    report = read_report(tmp_path)  # JSON has no infinity
    write_card(tmp_path, report, figures={}, fields={})
    card = (tmp_path / "README.md").read_text()
    (measured,) = yaml.safe_load(FRONT_MATTER.match(card)[1])["model-index"][0]["results"]
    assert [metric["type"] for metric in measured["metrics"]] == ["loss"]
    assert "| perplexity | not finite |" in card and problems(card) == ([], [])
