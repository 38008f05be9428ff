"""How the figures of this package look, and how they are written."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hf_geo.checkpoints.placing import whole_file


def style(axes: Axes, **settings: str) -> None:
    """Gives axes a light grid and no frame; `settings` are those of `Axes.set`."""
    axes.set(**settings)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, path: str | Path, title: str) -> None:
    """Writes a figure as PNG, whole or not at all, with its title as plain text; makes the folder."""
    figure.suptitle(title, fontsize="medium", parse_math=False)  # a name may hold a $
    with whole_file(path) as aside:
        figure.savefig(aside, dpi=120, format="png")
