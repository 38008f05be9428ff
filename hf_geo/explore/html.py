"""The parts of the page as HTML; every text from a model, a data set or a visitor is escaped here."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
import PIL.Image
from torch import Tensor

from hf_geo.metrics import is_share

from .charts import ENSEMBLE, NETWORK, Chart

TITLES = {
    "accuracy": "Accuracy",
    "perplexity": "Perplexity",
    "nll": "Negative log-likelihood",
    "ece": "Calibration error",
}
Prediction = Sequence[tuple[int, float]]  # number of the class and probability, of a network and of an ensemble
EDGE = 96  # pixels of a shown picture
MOST_CLASSES = 20  # of a confusion matrix that is still readable


def shown_value(metric: str, value: float | None) -> str:
    """A metric for people."""
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:.3g}"


def heading(title: str, *lines: str) -> str:
    """The head of the page."""
    return f"<h1>{escape(title)}</h1>" + "".join(f"<p>{escape(line)}</p>" for line in lines if line)


def section(title: str, note: str = "") -> str:
    """A heading with a note."""
    return f"<h2>{escape(title)}</h2>" + (f'<p class="note">{escape(note)}</p>' if note else "")


def note(text: str, *, alert: bool = False) -> str:
    """A sentence."""
    return f'<p class="note"{" role=alert" if alert else ""}>{escape(text)}</p>'


def tiles(
    metrics: Sequence[str],
    own: Mapping[str, float],
    ensemble: Mapping[str, float] | None,
    position: str,
    members: str,
) -> str:
    """The metrics of a network in large, with those of an ensemble below.

    Args:
        metrics: Their names.
        own: Of the network.
        ensemble: Of the ensemble; None without one.
        position: Names the network's position, which is the measured one nearest to what a visitor typed.
        members: Names the ensemble, or says why there is none; empty where none is expected.
    """
    cells = []
    for name in metrics:
        below = ""
        if ensemble is not None:
            below = f'<span class="ensemble">{shown_value(name, ensemble[name])}</span>'
        cells.append(
            f'<div class="tile"><span class="metric">{TITLES[name]}</span>'
            f'<strong data-metric="{name}">{shown_value(name, own[name])}</strong>{below}</div>'
        )
    shown = f'<div class="tiles">{"".join(cells)}</div>'
    if not members:
        return shown
    place = f'<span><i class="dot"></i>network at {escape(position)}</span>'
    mark = "· " if ensemble is None else '<i class="dot second"></i>'
    return f'{shown}<p class="note legend">{place} <span>{mark}{escape(members)}</span></p>'


def chart_grid(charts: Iterable[tuple[Chart, Sequence[tuple[float, float, str]]]]) -> str:
    """Charts side by side, each with its marks."""
    cells = [
        f'<figure class="chart" role="img" aria-label="{escape(chart.title, quote=True)}">'
        f"<figcaption>{escape(chart.title)}</figcaption>{chart.marked(*marks) if marks else chart.svg}</figure>"
        for chart, marks in charts
    ]
    return f'<div class="charts">{"".join(cells)}</div>'


def picture_styles(pictures: Sequence[PIL.Image.Image]) -> str:
    """CSS with the pictures of the samples, so that moving the slider sends their predictions alone."""
    rules = (f'.sample-{number}{{background-image:url("{data_url(image)}")}}' for number, image in enumerate(pictures))
    return "".join(rules)


def data_url(image: PIL.Image.Image) -> str:
    """A picture as the address of itself, at a size for the page."""
    scale = EDGE / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    resample = PIL.Image.Resampling.NEAREST if scale > 1 else PIL.Image.Resampling.LANCZOS
    buffer = io.BytesIO()
    image.resize(size, resample).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def sample_grid(
    classes: Sequence[str], texts: Sequence[str | None], labels: Sequence[int], predictions: Sequence[Prediction]
) -> str:
    """Samples with their predictions.

    Args:
        classes: Their names, of which several may be the same.
        texts: Of samples that are texts; None for each whose picture is in `picture_styles`.
        labels: Numbers of the true classes.
        predictions: Of the network and of the ensemble, if there is one.
    """
    cells = []
    for number, (text, label, predicted) in enumerate(zip(texts, labels, predictions, strict=True)):
        (found, probability), *joint = predicted
        right = found == label
        shown = (
            f'<i class="picture sample-{number}"></i>' if text is None else f"<blockquote>{escape(text)}</blockquote>"
        )
        truth = "" if right else f'<span class="truth">is {escape(classes[label])}</span>'
        second = other = ""
        for ensemble, share in joint:
            second = f'<b class="bar second" style="width:{100 * share:.0f}%"></b>'
            other = "" if ensemble == found else f'<span class="other">ensemble: {escape(classes[ensemble])}</span>'
        cells.append(
            f'<li class="sample {"right" if right else "wrong"}">{shown}<span class="name">'
            f"<span>{escape(classes[found])}</span><span>{100 * probability:.0f} %</span></span>"
            f'<span class="bars"><b class="bar" style="width:{100 * probability:.0f}%"></b>{second}</span>{other}{truth}</li>'
        )
    return f'<ul class="samples{" texts" if texts and texts[0] is not None else ""}">{"".join(cells)}</ul>'


def likely(classes: Sequence[str], own: Tensor, ensemble: Tensor | None, most: int = 5) -> str:
    """The likeliest classes of one sample, with the probabilities of the network and the ensemble.

    Args:
        classes: Names.
        own, ensemble: Probabilities, (classes,).
        most: How many to show.
    """
    rows = []
    for number in own.topk(min(most, len(own))).indices.tolist():
        values = [(float(own[number]), NETWORK)]
        if ensemble is not None:
            values.append((float(ensemble[number]), ENSEMBLE))
        bars = "".join(
            f'<span class="line"><b class="bar" style="width:{70 * p:.1f}%;background:{colour}"></b>{100 * p:.1f} %</span>'
            for p, colour in values
        )
        rows.append(f"<tr><th>{escape(classes[number])}</th><td>{bars}</td></tr>")
    return f'<table class="likely">{"".join(rows)}</table>'


def confusion(classes: Sequence[str], labels: np.ndarray, predicted: np.ndarray) -> str:
    """The confusion matrix as a table; of many classes the pairs that are confused most."""
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    if len(classes) > MOST_CLASSES:
        return _confused_pairs(classes, counts)
    head = "".join(f"<th>{escape(name)}</th>" for name in classes)
    rows = []
    for row, name in enumerate(classes):
        total = max(counts[row].sum(), 1)
        cells = []
        for column, count in enumerate(counts[row]):
            kind = "hit" if row == column else "miss"
            share = count / total
            strength = f' style="--share:{share:.3f}"' if count else ""
            strong = " strong" if share > 0.55 else ""
            cells.append(f'<td class="{kind}{strong}"{strength}>{count or ""}</td>')
        rows.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table class="confusion"><tr><th class="corner">true ↓ predicted →</th>{head}</tr>'
        f"{''.join(rows)}</table></div>"
    )


def _confused_pairs(classes: Sequence[str], counts: np.ndarray) -> str:
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:10]
    rows = []
    for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[row, column]:
            cells = (classes[row], classes[column], f"{wrong[row, column]} of {counts[row].sum()}")
            rows.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    return f'<table class="pairs"><tr><th>true</th><th>predicted</th><th>samples</th></tr>{"".join(rows)}</table>'
