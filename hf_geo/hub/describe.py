"""Draws the figures and writes the card of a finished run, from its folder alone."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_geo.checkpoints.placing import whole_file
from hf_geo.errors import in_words
from hf_geo.evaluation.images import show_samples
from hf_geo.evaluation.report import add_to_card, as_table, draw, note_on
from hf_geo.models import generate_text
from hf_geo.resources import command_line
from hf_geo.runs.figures import draw_by_size, draw_geometry, draw_training_curves
from hf_geo.runs.report import CARD, RunReport, read_report

from .card import write_card

logger = logging.getLogger(__name__)
TRAINING, GEOMETRY, SIZES = "figures/training.png", "figures/geometry.png", "figures/sizes.png"
README, WALK = "README.md", "evaluation.json"


class Description:
    """The figures and the card of a folder, each made if it can be.

    A figure, a sample of text or a card that fails is left out, with one warning that says how to make it again: the
    weights and the results are in the folder by then.

    Args:
        folder: The output of scripts/train.py, or of scripts/evaluate.py along a subspace.
        trust_remote_code: Run Python code that the model in the folder brings along, for a sample of text.

    Attributes:
        made: Paths inside the folder, in order.
        missing: Descriptions of the parts that failed.
    """

    def __init__(self, folder: str | Path, *, trust_remote_code: bool = False) -> None:
        self.folder, self.trust_remote_code = Path(folder), trust_remote_code
        self.made: list[str] = []
        self.missing: list[str] = []

    def add_run(self, report: RunReport) -> None:
        """Draws a run's figures and writes its card."""
        figures, sample, log = {}, None, []
        with self._optional("The log of the training"):
            log = json.loads((self.folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        with self._optional("The figure of the training"):
            draw_training_curves(log, report.metric, self.folder / TRAINING, report.dataset_name)
            figures[TRAINING] = f"Loss and {report.metric} during training"
        with self._optional("The figure of the geometry"):
            if draw_geometry(log, self.folder / GEOMETRY, report.dataset_name):
                figures[GEOMETRY] = "What the optimizer did to each layer"
        with self._optional("The figure of the sizes"):
            results = json.loads((self.folder / "eval_results.json").read_text(encoding="utf-8"))
            label = report.metric.replace("_", " ")
            if draw_by_size(results, report.metric, self.folder / SIZES, f"{label} (%); trained on sizes in red"):
                figures[SIZES] = f"{label} by size, in per cent; red: the sizes that it was trained on"
        with self._optional("The animation of samples"):
            figures |= show_samples(self.folder)
        self.made += figures
        if "prompt" in report.fields:
            with self._optional("The sample of text"):
                sample = _sample(self.folder, report.fields["prompt"], self.trust_remote_code)
        with self._optional("The card"):
            write_card(self.folder, report, figures=figures, fields={"sample": sample})
            self.made.append(README)

    def add_walk(self, data: dict[str, Any]) -> None:
        """Draws the walk of a subspace, and puts it into the card if there is one; of independent models, draws the trust.

        Args:
            data: What evaluation.json holds.
        """
        figures, card = {}, self.folder / README
        with self._optional("The figure of the walk"):
            subject = data["subspace"]["kind"] if data["subspace"] else ", ".join(data["models"])
            drawn = draw(data, self.folder / "figures", f"{subject} on {data['dataset']}")
            figures = {f"figures/{name}": caption for name, caption in drawn.items()}
            self.made += figures
        if data["subspace"] and card.is_file():
            with self._optional("The card's section on the walk"):
                text = add_to_card(card.read_text(encoding="utf-8"), figures, as_table(data), note_on(data))
                with whole_file(card) as path:
                    path.write_text(text, encoding="utf-8")
                self.made.append(README)

    @contextmanager
    def _optional(self, part: str) -> Iterator[None]:
        """Turns an error into a warning about the part that failed."""
        try:
            yield
        except Exception as error:  # of whatever kind: the results do not depend on it
            self.missing.append(part)
            trust = ["--trust_remote_code", "true"] if self.trust_remote_code else []
            logger.warning(
                "%s could not be made (%s: %s); weights and results are complete. Make it again with `%s`.",
                part,
                type(error).__name__,
                in_words(error),
                command_line("card", self.folder, *trust),
                exc_info=os.environ.get("HF_GEO_TRACEBACK") == "1",
            )


def describe(folder: str | Path, *, trust_remote_code: bool = False) -> Description:
    """Draws the figures of a run and of its evaluation, and writes its card, from the results in its folder.

    Raises:
        ValueError: There are no results in the folder, or they are damaged.
    """
    description, walk = Description(folder, trust_remote_code=trust_remote_code), _read_evaluation(Path(folder))
    if walk is None or Path(folder, f"{CARD}.json").exists():
        description.add_run(read_report(folder))
    if walk is not None:
        description.add_walk(walk)
    return description


def _read_evaluation(folder: Path) -> dict[str, Any] | None:
    """Reads the evaluation of a subspace, or of independent models; None if the folder has none."""
    path = folder / WALK
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(data, dict) and data.keys() >= {"subspace", "points"}):
            raise ValueError("it has no points")
        return data
    except ValueError as error:
        raise ValueError(f"{str(path)!r} holds no evaluation ({error}): run scripts/evaluate.py again.") from error


def _sample(folder: Path, prompt: str, trust_remote_code: bool) -> str:
    """Opens the exported model and returns the text that it generates from a prompt."""
    model, tokenizer = (
        auto.from_pretrained(folder, trust_remote_code=trust_remote_code)
        for auto in (AutoModelForCausalLM, AutoTokenizer)
    )
    return generate_text(model, tokenizer, prompt)
