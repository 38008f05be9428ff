"""The page: controls for the position, and what the network there does."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from hf_geo.evaluation.figures import metric_values, shown_metrics
from hf_geo.models import generate_text

from . import html
from .charts import ENSEMBLE, NETWORK, Chart, path_charts
from .exploration import LIVE, Exploration, View
from .report import add_mistakes, add_training
from .triangle import triangle

STYLE = Path(__file__).with_name("page.css")
# Fonts of the visitor's own system: nothing is fetched from anywhere.
THEME = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
LIVE_EVENTS = {
    "show_progress": "hidden",
    "trigger_mode": "always_last",
    "concurrency_limit": None,
    "api_visibility": "private",
}


class Page:
    """The page of an exploration.

    Nothing of a visitor is kept on the server: each event brings the position and the sample that it is about.

    Args:
        exploration: What is measured.
        title: The model's name.
        lines: What it is, in words.
        training: Charts of its training.
        geometry: Charts of each layer in training.
    """

    def __init__(
        self,
        exploration: Exploration,
        title: str,
        lines: Sequence[str],
        training: Sequence[Chart],
        geometry: Sequence[Chart],
    ) -> None:
        self.exploration = exploration
        self.metrics = shown_metrics(exploration.found)
        self.fields: list[gr.components.Component] = []
        self.charts: dict[str, Chart] = {}
        if exploration.subspace is not None and exploration.subspace.config.shape.is_path:
            self.charts = path_charts(exploration.found, exploration.positions, html.TITLES)
        show = exploration.view_of.show
        pictures = [picture for sample in exploration.shown for picture in show(sample)]
        self.texts = [picture if isinstance(picture, str) else None for picture in pictures]
        self.css = html.picture_styles([picture for picture in pictures if not isinstance(picture, str)])
        start = exploration.at(exploration.centre)
        # Images of visitors are removed an hour after their upload.
        with gr.Blocks(title="Explorer of hf_geo", analytics_enabled=False, delete_cache=(600, 3600)) as self.blocks:
            gr.HTML(html.heading(title, *lines))
            parts = self._shown(start)
            with gr.Row() if self._has_triangle else nullcontext():
                with gr.Column(elem_id=None if self._has_triangle or exploration.groups else "controls", min_width=300):
                    self.controls, moves = self._add_controls()
                with gr.Column(min_width=300) if self._has_triangle else nullcontext():
                    if self.controls:
                        gr.HTML(html.note(self._statistics()))
                    outputs = [gr.HTML(parts.pop("metrics"), elem_id="metrics")]
            outputs += [gr.HTML(part, elem_id=name) for name, part in parts.items()]
            own, continuation = self._add_own(start)
            if exploration.subspace is None and not exploration.causal:
                add_mistakes(exploration)
            add_training(training, geometry)
            inputs = [*self.controls, *self.fields]
            outputs.append(own)
            gr.on([field.change for field in self.fields], self.answer_own, inputs, own, **LIVE_EVENTS)
            if moves:
                gr.on(moves, self.answer_move, inputs, outputs, **LIVE_EVENTS)
            if continuation is not None:
                button, text = continuation
                gr.on([button.click, self.fields[0].submit], self.answer_continue, inputs, text, concurrency_limit=None)

    # Answers to events

    def answer_move(self, *inputs: Any) -> list[str]:
        """What changes with the position."""
        view = self._view(inputs)
        return [*self._shown(view).values(), self._own(view, inputs)]

    def answer_own(self, *inputs: Any) -> str:
        """What the network does with a visitor's sample."""
        return self._own(self._view(inputs), inputs)

    def answer_continue(self, *inputs: Any) -> str:
        """The continuation of a visitor's prompt."""
        prompt = inputs[-1] or ""
        try:
            with self.exploration.networks.at(self._view(inputs).place) as model:
                text = generate_text(model, self.exploration.setup.processor, prompt)
        except ValueError as error:
            return html.note(str(error), alert=True)
        return f'<div class="continuation">{escape(text)}</div>'

    def _view(self, inputs: Sequence[Any]) -> View:
        values = inputs[: len(self.controls)]
        exploration = self.exploration
        if exploration.groups:
            return exploration.between([float(value) for value in values])
        if self.charts:
            return exploration.at(round(float(values[0]) * (exploration.grid - 1)))
        return exploration.at(int(values[0]) if values else 0)

    # Parts

    def _add_controls(self) -> tuple[list[gr.components.Component], list[Callable]]:
        exploration = self.exploration
        subspace = exploration.subspace
        if subspace is None:
            return [], []
        if exploration.groups:
            sliders = [self._slider(name, layers) for name, layers in exploration.group_names()]
            return sliders, [slider.change for slider in sliders]
        if subspace.config.shape.is_path:
            end = "0 is the start, 1 the end" if subspace.config.kind == "curve" else "0 and 1 are the ends of the line"
            slider = self._slider("Position a", f"{end}, 0.5 is the centre; the arrow keys move it")
            return [slider], [slider.change]
        names = [place.name for place in exploration.places[: exploration.grid]]
        if self._has_triangle:
            name = self.metrics[0]
            values = [row[name] for row in exploration.found.points]
            control = triangle(exploration.positions, names, name, values, exploration.centre)
            moves = [control.input]
        else:
            choices = [(name, number) for number, name in enumerate(names)]
            control = gr.Dropdown(choices, value=exploration.centre, label="Position", filterable=True)
            moves = [control.change]
        return [control], moves

    @property
    def _has_triangle(self) -> bool:
        subspace = self.exploration.subspace
        return (
            subspace is not None
            and subspace.config.num_points == 3
            and not (subspace.config.shape.is_path or subspace.config.layerwise)
        )

    def _slider(self, label: str, info: str) -> gr.Slider:
        start = self.exploration.centre / (self.exploration.grid - 1)
        return gr.Slider(0, 1, start, step=1 / (self.exploration.grid - 1), label=label, info=info, buttons=[])

    def _statistics(self) -> str:
        """What the metrics are measured on, and where the norm statistics come from, in words."""
        exploration = self.exploration
        count = exploration.found.recalibration_samples
        where = f"Measured at {exploration.grid} positions."
        if count:
            where = f"Norm statistics: recalibrated on {count:,} training samples at each of {exploration.grid} positions, and looked up."
        between = []
        if exploration.nodes:
            between.append(
                f"norm statistics are interpolated between those of {exploration.nodes} recalibrated networks"
            )
        if exploration.groups and not exploration.causal:
            samples = min(LIVE, exploration.found.samples)
            between.append(f"the metrics are of the first {samples} samples of the {exploration.setup.split} split")
        return where + (f" Where the groups differ, {' and '.join(between)}." if between else "")

    def _shown(self, view: View) -> dict[str, str]:
        """The parts that follow the position, by their ids."""
        parts = {"metrics": html.note("The metrics are not measured where the groups of layers differ.")}
        if view.metrics is not None:
            parts["metrics"] = html.tiles(self.metrics, view.metrics, view.joint, view.place.name, view.together)
        if self.charts:
            parts["curves"] = html.chart_grid((chart, self._marks(name, view)) for name, chart in self.charts.items())
        if not self.exploration.causal:
            labels = self.exploration.record.labels[self.exploration.shown_numbers].tolist()
            grid = html.sample_grid(self.exploration.view_of.classes, self.texts, labels, view.predictions)
            parts["samples"] = html.section(*self._title_of_samples()) + grid
        return parts

    def _title_of_samples(self) -> tuple[str, str]:
        split = self.exploration.setup.split
        if self.exploration.subspace is None:
            return (
                "Mistakes and doubts",
                f"Samples of the {split} split: the most confident mistakes first, then the least certain.",
            )
        return "Predictions", (
            f"Samples of the {split} split, first those whose prediction changes between positions. Bars: the probability of the "
            "predicted class, by this network (blue) and by the ensemble (orange), whose class is named where it is another."
        )

    def _marks(self, name: str, view: View) -> list[tuple[float, float, str]]:
        if view.number is None:
            return []
        x = self.exploration.positions[view.number]
        rows = [(view.metrics, NETWORK), *([(view.joint, ENSEMBLE)] if view.joint else [])]
        return [(x, metric_values([row], name)[0], colour) for row, colour in rows]

    def _add_own(self, view: View) -> tuple[gr.HTML, tuple[gr.Button, gr.HTML] | None]:
        exploration = self.exploration
        names, example = exploration.view_of.fields, exploration.view_of.example
        titles = {"image": "An image of your own", "prompt": "Continue a text"}
        gr.HTML(html.section(titles.get(names[0], "A text of your own"), self._about_own(names[0])))
        continuation = None
        with gr.Row():
            with gr.Column(scale=2, min_width=260):
                for number, name in enumerate(names):
                    if name == "image":
                        field = gr.File(
                            label="Image", file_types=["image"], type="filepath", height=150, elem_id="own-image"
                        )
                    else:
                        value = example[number] if example else ""
                        field = gr.Textbox(
                            value, label=name.capitalize(), lines=2, max_lines=6, max_length=2000, submit_btn=False
                        )
                    self.fields.append(field)
                if exploration.causal:
                    button = gr.Button("Continue", variant="primary")
            with gr.Column(scale=3, min_width=260):
                own = gr.HTML(self._own(view, example), elem_id="own")
                if exploration.causal:
                    continuation = button, gr.HTML(elem_id="continuation")
        return own, continuation

    def _about_own(self, field: str) -> str:
        if field == "prompt":
            return "The likeliest next words at this position. The button draws a continuation from the network."
        where = "" if self.exploration.subspace is None else " at this position"
        return f"What the network makes of it{where}."

    def _own(self, view: View, inputs: Sequence[Any]) -> str:
        fields = inputs[-len(self.fields) :]
        if not (fields and all(fields)):
            return html.note(
                "Upload an image to see its likeliest classes." if not self._takes_text else "Write a text."
            )
        try:
            own, ensemble = self.exploration.own(view, *fields)
        except ValueError as error:
            what = "" if self._takes_text else "This file cannot be used as an image: "
            return html.note(f"{what}{error}", alert=True)
        table = html.likely(self.exploration.view_of.classes, own, ensemble)
        if self._takes_text:
            return table
        (picture,) = self.exploration.view_of.show(self.exploration.view_of.prepare(*fields))
        address = html.data_url(picture)
        return f'<div class="own"><i class="own-picture" style="background-image:url({address})"></i><div>{table}</div></div>'

    @property
    def _takes_text(self) -> bool:
        return self.exploration.view_of.fields[0] != "image"
