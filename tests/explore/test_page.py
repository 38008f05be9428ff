"""What the page shows, against networks that are opened and moved by hand; and what it makes of bad input."""

import html as stdlib_html
import math
import re
import shutil
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from hf_geo.data.config import DataArguments
from hf_geo.data.vision import load_image_data
from hf_geo.evaluation.norms import recalibrate_norms
from hf_geo.explore import html
from hf_geo.explore.charts import draw_chart
from hf_geo.explore.networks import Networks, Place, count_batches
from hf_geo.explore.page import Page
from hf_geo.explore.record import order_samples
from hf_geo.models.build import input_config
from tests.explore.runs import HOSTILE, make_hostile, page_of
from tests.scripts import script

explore = script("explore")


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_value_that_is_not_finite_is_named(value: float | None) -> None:
    assert html.shown_value("perplexity", value) == "not finite" and html.shown_value("accuracy", 0.5) == "50.0 %"


@pytest.fixture(scope="module")
def pages(runs: Path) -> dict[str, Page]:
    words = {"layers": ("--positions=3",), "simplex": ("--positions=7",)}
    return {name: page_of(runs / name, *words.get(name, ())) for name in ("line", "layers", "simplex", "four", "plain")}


@pytest.fixture(scope="module")
def digit(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("images") / "digit.png"
    data = load_image_data(DataArguments(dataset="digits"))
    data.splits["test"].first.save(path)
    return str(path)


def by_hand(page: Page, coefficients: Tensor, image: PIL.Image.Image) -> Tensor:
    """The probabilities of an image by a network that is moved, recalibrated and run step by step."""
    setup, subspace = page.exploration.setup, page.exploration.subspace
    subspace.move_to(coefficients)
    recalibrate_norms(subspace.model, setup.recalibration, 1)
    samples = load_image_data(DataArguments(dataset="digits")).dataset("test", input_config(subspace.model))
    with torch.no_grad():
        return subspace.model(samples[0]["pixel_values"][None]).logits.softmax(-1)[0]


def percentages(shown: str) -> list[float]:
    return [float(found) for found in re.findall(r"</b>([\d.]+) %", shown)]


@pytest.mark.parametrize(
    ("name", "inputs", "coefficients"),
    [
        ("line", (0.25,), [0.75, 0.25]),
        ("simplex", (3,), [1 / 3] * 3),
        ("layers", (0.0, 0.0, 0.0), [1.0, 0.0]),
        ("layers", (1.0, 0.0, 0.5), lambda exploration: exploration.between([1.0, 0.0, 0.5]).place.coefficients),
        ("four", (8,), lambda exploration: exploration.places[8].coefficients),  # drawn layer by layer
    ],
)
def test_an_image_of_ones_own_gets_the_network_at_the_position(pages, digit, name, inputs, coefficients) -> None:
    page = pages[name]
    exploration = page.exploration
    rows = coefficients(exploration) if callable(coefficients) else torch.tensor(coefficients, dtype=torch.float64)
    (*_, shown) = page.answer_move(*inputs, digit)
    expected = by_hand(page, rows, digit)
    best = expected.topk(5).values * 100
    assert percentages(shown)[::2] == pytest.approx(best.tolist(), abs=0.051)


def test_the_grid_and_the_metrics_are_those_of_the_position(pages) -> None:
    page = pages["line"]
    exploration, labels = page.exploration, page.exploration.record.labels
    view = exploration.at(1)
    loader = exploration.setup.evaluation
    found = torch.cat([exploration.networks.log_probabilities([view.place], batch) for batch in loader]).exp()
    mirrored = torch.cat([exploration.networks.log_probabilities(view.members, batch) for batch in loader]).exp()
    assert view.metrics["accuracy"] == (found.argmax(-1).numpy() == labels).mean()
    assert view.joint["accuracy"] == (mirrored.argmax(-1).numpy() == labels).mean()
    for row, number in zip(view.predictions, exploration.shown_numbers, strict=True):
        for (label, share), probabilities in zip(row, (found, mirrored), strict=True):
            assert label == probabilities[number].argmax()
            assert share == pytest.approx(probabilities[number].max().item(), abs=1e-5)


def test_positions_are_measured_anew_and_the_work_is_announced(pages, runs, tmp_path, capsys) -> None:
    shutil.copytree(runs / "line", tmp_path / "line")
    (tmp_path / "line" / "evaluation.json").write_text('{"points": []}')
    page = page_of(tmp_path / "line")
    assert page.exploration.found == pages["line"].exploration.found
    announced = r"Measuring 5 positions on the test split of digits before the page opens, which takes about \d+ min"
    assert re.match(announced, capsys.readouterr().out)


def test_no_more_batches_are_announced_than_there_are() -> None:
    loaders = (([1, 2], 40), ([1, 2], 1), ([1, 2], None), (iter([]), 40), (iter([]), None))
    assert [count_batches(*each) for each in loaders] == [2, 1, 2, 40, None]


def test_moving_along_a_path_runs_no_network(pages, monkeypatch) -> None:
    page = pages["line"]
    monkeypatch.setattr(page.exploration.networks, "at", None)
    first, last = (page.answer_move(position, None) for position in (0.0, 1.0))
    assert all(one != other for one, other in zip(first[:3], last[:3], strict=True))


def test_what_is_typed_between_steps_shows_the_measured_position(pages) -> None:
    shown = pages["line"].answer_move(0.3, None)
    assert "network at 0.25" in shown[0] and shown == pages["line"].answer_move(0.25, None)


def test_positions_between_the_measured_ones_say_on_what_they_are_measured(pages, monkeypatch) -> None:
    page = pages["layers"]
    monkeypatch.setattr(page.exploration, "first_node", len(page.exploration.record.statistics))  # as without norms
    monkeypatch.setattr(page.exploration, "found", replace(page.exploration.found, recalibration_samples=0))
    monkeypatch.setattr(page.exploration, "setup", replace(page.exploration.setup, split="dev"))
    rest = "Where the groups differ, the metrics are of the first 64 samples of the dev split."
    assert page._statistics() == f"Measured at 3 positions. {rest}"


def test_a_sure_network_has_a_finite_likelihood() -> None:
    model = torch.nn.Linear(1, 2)
    model.load_state_dict({"weight": torch.tensor([[500.0], [0.0]]), "bias": torch.zeros(2)})
    nowhere = Place("", None, {})
    found = Networks(model, None, []).log_probabilities([nowhere, nowhere], torch.ones(1, 1))
    assert found.tolist() == [[0.0, -500.0]]


def test_classes_of_one_name_are_told_apart_by_number() -> None:
    shown = html.sample_grid(["crane", "crane"], [None], [0], [[(1, 0.9), (0, 0.8)]])
    assert 'class="sample wrong"' in shown and "is crane" in shown and "ensemble: crane" in shown


def test_statistics_between_the_nodes_are_their_weighted_mean(pages) -> None:
    exploration = pages["layers"].exploration
    place = exploration.between([0.25, 0.0, 0.9]).place
    node = exploration.first_node
    assert place.shares == pytest.approx({node + 1: 0.1, node + 2: 0.4, node + 10: 0.1, node + 11: 0.4})
    view = exploration.between([0.25, 0.0, 0.9])
    assert len(view.predictions) == len(exploration.shown) and 0 <= view.metrics["accuracy"] <= 1


def test_ten_visitors_at_once_get_what_one_gets(pages, digit, tmp_path) -> None:
    other = tmp_path / "other.png"
    PIL.Image.fromarray(np.full((8, 8), 90, np.uint8)).save(other)
    asked = [(name, (*position, image)) for image in (digit, str(other)) for name, position in
             (("line", (0.0,)), ("line", (1.0,)), ("layers", (0.2, 0.7, 0.4)), ("layers", (0.9, 0.1, 0.3)), ("simplex", (2,)))]  # fmt: skip
    alone = [pages[name].answer_move(*inputs) for name, inputs in asked]
    with ThreadPoolExecutor(10) as visitors:
        together = list(visitors.map(lambda each: pages[each[0]].answer_move(*each[1]), asked))
    assert together == alone


def test_telling_samples_come_first() -> None:
    predicted = np.array([[0, 1, 1, 0, 0], [0, 0, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 0, 0]])
    confidence = np.tile([0.6, 0.5, 0.8, 0.9, 0.99], (4, 1))
    labels = np.array([0, 0, 0, 1, 0])
    # split evenly; the mistakes, the surer one first; the right ones, the less certain one first
    assert order_samples(predicted, confidence, labels).tolist() == [1, 3, 2, 0, 4]


def test_a_mark_is_on_the_curve() -> None:
    xs, ys = [0.0, 0.5, 1.0], [3.0, 1.0, 2.0]
    chart = draw_chart("t", lambda axes: axes.plot(xs, ys, color="#123456"))
    path = re.search(r'<path d="([^"]*)"[^>]*stroke: #123456', chart.svg)[1]
    drawn = [float(number) for number in re.findall(r"[\d.]+", path)]
    marked = chart.marked(*[(x, y, "red") for x, y in zip(xs[::-1], ys[::-1], strict=True)])
    centres = [float(found) for pair in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', marked) for found in pair]
    assert centres == pytest.approx(drawn, abs=0.06)


class Tags(HTMLParser):
    """Collects the tags and attributes of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found |= {tag, *(name for name, _ in attrs)}


@pytest.mark.parametrize(
    "shown",
    [
        html.heading(HOSTILE, HOSTILE),
        html.note(HOSTILE, alert=True),
        html.section(HOSTILE, HOSTILE),
        html.sample_grid(["a", HOSTILE], [HOSTILE], [1], [[(0, 0.5), (1, 0.5)]]),
        html.sample_grid(["a", HOSTILE], [None], [0], [[(1, 0.5)]]),
        html.likely([HOSTILE, "a"], torch.tensor([0.4, 0.6]), None),
        html.confusion([HOSTILE, "a"], np.array([0]), np.array([1])),
        html.confusion([HOSTILE] * 30, np.array([0]), np.array([1])),
        html.tiles(["accuracy"], {"accuracy": 1.0}, None, position=HOSTILE, members=HOSTILE),
        html.chart_grid([(draw_chart(HOSTILE, lambda axes: axes.plot([0, 1])), ())]),
    ],
)
def test_hostile_text_is_text(shown: str) -> None:
    assert not Tags(shown).found & {"img", "onerror", "src", "script"}
    assert HOSTILE in stdlib_html.unescape(shown)


def test_hostile_classes_of_a_run_are_text(tmp_path) -> None:
    page = page_of(make_hostile(tmp_path), "--dataset", str(tmp_path / "data"))
    values = [str(block.value) for block in page.blocks.blocks.values() if getattr(block, "value", None)]
    assert any("onerror" in value for value in values)
    assert not any("onerror" in Tags(value).found for value in values)


@pytest.mark.parametrize(("content", "says"), [(b"words", "cannot identify image file"), (b"\x89PNG\r\n\x1a\n", "")])
def test_a_file_that_is_no_image_gets_one_sentence(pages, tmp_path, content, says) -> None:
    (tmp_path / "x.png").write_bytes(content)
    shown = pages["line"].answer_own(0.5, str(tmp_path / "x.png"))
    assert "role=alert" in shown and "This file cannot be used as an image: " in shown and says in shown


def test_without_gradio_a_sentence_says_how_to_get_it(runs, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit):
        explore([runs / "line"])
    assert "explore.py: error: The page needs gradio" in (said := capsys.readouterr().err)
    assert "pip install 'hf_geo[explore]'" in said


def test_a_task_with_nothing_to_show(runs, pages, monkeypatch, capsys) -> None:
    setup = replace(pages["plain"].exploration.setup, view=None)
    monkeypatch.setattr("hf_geo.explore.app.open_trained", lambda *_: setup)
    with pytest.raises(SystemExit):
        explore([runs / "plain"])
    assert "which is what the page shows: use scripts/evaluate.py" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["taken", 99999])
def test_a_port_that_cannot_be_used(runs, capsys, port) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1] if port == "taken" else port
        with pytest.raises(SystemExit):
            explore([runs / "line", "--port", number])
    assert f"Port {number} cannot be used" in capsys.readouterr().err
