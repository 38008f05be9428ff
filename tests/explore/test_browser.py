"""The page in a real browser: Debian's chromium without a display, on pages that are served as users serve them."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from hf_geo.explore.app import launch
from tests.evaluation.test_script import language_line as language_line
from tests.explore.runs import make_hostile, page_of
from tests.scripts import script

CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
SECONDS = 30  # to wait for the page on a busy machine
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """A visitor's tab, which collects errors of the console and requests to other machines."""

    def __init__(self, browser: Browser, url: str, size: dict[str, int]) -> None:
        self.context: BrowserContext = browser.new_context(viewport=size)
        self.context.set_default_timeout(1000 * SECONDS)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("console", lambda said: said.type == "error" and self.problems.append(said.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", self.check)
        self.url = url
        self.page.goto(url)
        expect(self.page.locator("#metrics")).to_be_visible()

    def check(self, request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.problems.append(f"request to {request.url}")

    def accuracy(self) -> str:
        return self.page.locator("[data-metric=accuracy]").inner_text()

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *_: object) -> None:
        fits = self.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        self.context.close()
        assert self.problems == [] and fits


@pytest.fixture(scope="module")
def line(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of a line, served by the Space that is exported of it, as the Hub does: in its folder, with its own package."""
    folder = tmp_path_factory.mktemp("spaces") / "space"
    words = ["--export_space", folder, "--positions", 5, "--recalibration_batches", 2]
    assert script("explore")([runs / "line", *words]) == 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"GRADIO_SERVER_PORT": str(port), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "app.py"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as app:
        try:
            said = next(text for text in app.stdout if text.startswith("Open "))
            yield said.split()[1].rstrip("/")
        finally:
            app.terminate()


@pytest.fixture
def serve() -> Iterator:
    """Serves pages of this process until the test ends."""
    pages = []

    def start(page) -> str:
        pages.append(page)
        return launch(page, None, block=False).rstrip("/")

    yield start
    for page in pages:
        page.blocks.close()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_keys_move_along_a_line(browser: Browser, line: str, size: dict[str, int]) -> None:
    with Visit(browser, line, size) as visit:
        page, slider = visit.page, visit.page.locator("input[type=range]")
        expect(slider).to_be_visible()
        for _ in range(12):
            page.keyboard.press("Tab")
            if slider.evaluate("element => element === document.activeElement"):
                break
        expect(slider).to_be_focused()
        parts, centre = ("#samples ul", "#curves .charts"), visit.accuracy()
        shown = {part: page.locator(part).inner_html() for part in parts}
        page.keyboard.press("Home")
        for part, before in shown.items():
            page.wait_for_function(
                "([id, before]) => document.querySelector(id).innerHTML !== before", arg=[part, before]
            )
        expect(page.locator("#metrics")).to_contain_text("ensemble of 0 and 1")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#metrics")).to_contain_text("ensemble of 0.25 and 0.75")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#metrics")).to_contain_text("at the centre")
        assert visit.accuracy() == centre
        page.locator("#samples").scroll_into_view_if_needed()
        expect(page.locator("input[type=range]")).to_be_in_viewport()


def test_an_image_of_ones_own_follows_the_slider(browser: Browser, line: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(40, 30), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "own.png")
    (tmp_path / "words.png").write_text("no image")
    with Visit(browser, line, DESKTOP) as visit:
        page, own = visit.page, visit.page.locator("#own")
        page.locator("#own-image input[type=file]").set_input_files(tmp_path / "own.png")
        expect(own.locator("tr")).to_have_count(5)
        shown = own.inner_text()
        page.locator("input[type=range]").focus()
        page.keyboard.press("End")
        page.wait_for_function("before => document.querySelector('#own').innerText !== before", arg=shown)
        page.get_by_label(re.compile("remove|clear", re.I)).first.click()
        expect(own).to_contain_text("Upload an image")
        page.locator("#own-image input[type=file]").set_input_files(tmp_path / "words.png")
        expect(own.get_by_role("alert")).to_contain_text("This file cannot be used as an image")


def test_a_triangle_is_clicked_and_moved_by_keys(browser: Browser, runs: Path, serve) -> None:
    with Visit(browser, serve(page_of(runs / "simplex", "--positions=7")), DESKTOP) as visit:
        page = visit.page
        chosen = page.locator("#triangle circle[aria-checked=true]")
        expect(chosen).to_have_attribute("data-number", "3")
        page.locator("#triangle circle[data-number='0']").click()
        expect(chosen).to_have_attribute("data-number", "0")
        grid = page.locator("#samples ul").inner_html()
        page.keyboard.press("ArrowRight")
        expect(chosen).not_to_have_attribute("data-number", "0")
        expect(chosen).to_be_focused()
        page.wait_for_function("before => document.querySelector('#samples ul').innerHTML !== before", arg=grid)


def test_the_groups_of_a_layer_wise_line_move_alone(browser: Browser, runs: Path, serve) -> None:
    with Visit(browser, serve(page_of(runs / "layers", "--positions=3")), PHONE) as visit:
        sliders = visit.page.locator("input[type=range]")
        expect(sliders).to_have_count(3)
        sliders.nth(1).focus()
        visit.page.keyboard.press("End")
        expect(visit.page.locator("#metrics")).to_contain_text("ensemble with 1 - a in every group")


def test_a_plain_run_with_hostile_classes(browser: Browser, tmp_path: Path, serve) -> None:
    page = page_of(make_hostile(tmp_path), "--dataset", str(tmp_path / "data"))
    with Visit(browser, serve(page), PHONE) as visit:
        expect(visit.page.locator("#confusion table")).to_be_visible()
        expect(visit.page.locator("#reliability svg")).to_be_visible()
        assert "onerror" in visit.page.locator("#confusion").inner_text()
        assert visit.page.evaluate("window.hacked") is None


def test_texts_are_classified(browser: Browser, tmp_path: Path, serve) -> None:
    words = ["--dataset", "glosses", "--max_steps", 1, "--max_train_samples", 64, "--max_eval_samples", 32]
    words += ["--model", "bilstm_nli", "--model_args", "word_size=4,hidden_size=4,classifier_size=4"]
    quiet = ["--disable_tqdm", "true", "--report_to", "none", "--save_strategy", "no", "--output_dir", tmp_path / "run"]
    assert script("train")([*words, *quiet]) == 0
    page = page_of(tmp_path / "run")
    with Visit(browser, serve(page), PHONE) as visit:
        expect(visit.page.locator("#samples blockquote").first).to_be_visible()
        before = visit.page.locator("#own").inner_text()
        visit.page.get_by_role("textbox").first.fill("a small animal that barks")
        visit.page.wait_for_function("before => document.querySelector('#own').innerText !== before", arg=before)


def test_a_language_model_continues(browser: Browser, language_line: Path, serve) -> None:
    with Visit(browser, serve(page_of(language_line)), DESKTOP) as visit:
        page = visit.page
        expect(page.locator("#own tr")).to_have_count(5)
        before = page.locator("#own").inner_text()
        page.locator("input[type=range]").focus()
        page.keyboard.press("Home")
        page.wait_for_function("before => document.querySelector('#own').innerText !== before", arg=before)
        prompt = page.get_by_role("textbox", name="Prompt").input_value()
        page.get_by_role("button", name="Continue").click()
        expect(page.locator(".continuation")).to_contain_text(prompt.split()[-1])
        assert len(page.locator(".continuation").inner_text()) > len(prompt)
        page.get_by_role("textbox", name="Prompt").fill("qzxv")
        expect(page.locator("#own").get_by_role("alert")).to_contain_text("has no word")
