"""The training-curve figure of a run, from the Trainer's own log."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = {"training": "tab:blue", "evaluation": "tab:orange"}


def draw_training_curves(
    log_history: Sequence[Mapping[str, Any]], metric: str, path: str | Path, title: str = ""
) -> None:
    """Draws the losses, and beside them the evaluation metric, against the update.

    Args:
        log_history: `trainer.state.log_history`.
        metric: What was evaluated besides the loss, such as "accuracy".
        path: PNG file to write; its folder is made.
        title: Title above both panels.
    """
    panels = [("loss", {"training": "loss", "evaluation": "eval_loss"}), (metric, {"evaluation": f"eval_{metric}"})]
    panels = [(label, keys) for label, keys in panels if any(k in row for row in log_history for k in keys.values())]
    figure = Figure(figsize=(4.6 * max(len(panels), 1), 3.2), layout="constrained")
    for axes, (label, keys) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0] if panels else [], panels, strict=True
    ):
        for name, key in keys.items():
            points = [(row["step"], row[key]) for row in log_history if key in row]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    color=COLOURS[name],
                    label=name,
                    marker="." if len(points) < 40 else "",
                    linewidth=1.4,
                )
        axes.set(xlabel="update", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(title, fontsize="medium")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
