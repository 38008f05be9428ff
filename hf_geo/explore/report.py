"""The fixed parts of the page: a network's mistakes and its training."""

from collections.abc import Sequence

import gradio as gr

from hf_geo.metrics.trust import reliability

from . import html
from .charts import Chart, reliability_chart
from .exploration import Exploration


def add_mistakes(exploration: Exploration) -> None:
    """Adds the confusion matrix and the reliability diagram of a single classifier."""
    record = exploration.record
    predicted, labels = record.predicted[0], record.labels
    chart = reliability_chart(reliability(record.confidence[0], predicted == labels))
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            gr.HTML(html.section("Where it errs", "Rows are true classes, columns predicted ones."))
            gr.HTML(html.confusion(exploration.view_of.classes, labels, predicted), elem_id="confusion")
        with gr.Column(scale=2, min_width=300):
            about = "How many of the samples of one confidence are right; a larger dot stands for more samples."
            gr.HTML(html.section("May its confidence be trusted?", about))
            gr.HTML(html.chart_grid([(chart, ())]), elem_id="reliability")


def add_training(training: Sequence[Chart], geometry: Sequence[Chart]) -> None:
    """Adds the charts of a training."""
    layers = "A line a layer, from the first (dark) to the last (bright), against the update."
    for title, about, charts in (("Training", "", training), ("Geometry", layers, geometry)):
        if charts:
            gr.HTML(html.section(title, about))
            gr.HTML(html.chart_grid((chart, ()) for chart in charts), elem_id=title.lower())
