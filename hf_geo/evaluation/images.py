"""Pictures of what a generator makes: grids of samples, paths between them, and their change through training."""

from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import torch
from torch import Tensor
from torchvision.utils import make_grid
from transformers import PreTrainedModel

from hf_geo.checkpoints.placing import whole_file
from hf_geo.metrics.generation import to_bytes

SAMPLES = "figures/samples"  # where a run keeps its grids
ANIMATION = "figures/samples.gif"
ROWS, COLUMNS = 10, 10  # of a grid
MILLISECONDS = 400  # a frame


def grid_labels(model: PreTrainedModel, columns: int) -> Tensor | None:
    """The classes of a grid's images, row by row; None for a model without classes."""
    classes = model.config.num_classes
    return torch.arange(min(classes, ROWS)).repeat_interleave(columns) if classes else None


def write_grid(model: PreTrainedModel, path: Path, *, columns: int, seed: int) -> None:
    """Writes samples of a model as PNG: a row a class, the first ten, and a column a draw of latent variables.

    Args:
        model: A generative adversarial network, see `hf_geo.models.gan`.
        path: The file; its folder is made.
        columns: Images in a row.
        seed: Of the latent variables.
    """
    labels, generator = grid_labels(model, columns), torch.Generator().manual_seed(seed)
    if labels is None:
        latents = model.draw_latents(ROWS * columns, generator)
    else:
        latents = model.draw_latents(columns, generator).repeat(len(labels) // columns, 1)
    save_grid(model.generate(labels, latents=latents), path, columns)


def write_interpolation(model: PreTrainedModel, path: Path, *, columns: int, seed: int) -> None:
    """Writes images along paths between two draws of latent variables as PNG, a path a row and a class a row.

    The path is the great circle's part: along a straight line the norms would be smaller than those of draws.

    Args:
        model, path, columns, seed: As for `write_grid`.
    """
    labels, generator = grid_labels(model, columns), torch.Generator().manual_seed(seed)
    rows = ROWS if labels is None else len(labels) // columns
    start, end = model.draw_latents(rows, generator), model.draw_latents(rows, generator)
    angle = torch.linspace(0, torch.pi / 2, columns, device=start.device)[None, :, None]
    latents = (start[:, None] * angle.cos() + end[:, None] * angle.sin()).flatten(0, 1)
    save_grid(model.generate(labels, latents=latents), path, columns)


def save_grid(images: Tensor, path: Path, columns: int) -> None:
    """Writes images (N, C, H, W) with values from 0 to 1 as one PNG."""
    pixels = make_grid(to_bytes(images.float().cpu()), nrow=columns, padding=2, pad_value=255)
    with whole_file(path) as aside:
        PIL.Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(aside, format="PNG")


def show_samples(folder: Path) -> dict[str, str]:
    """Makes an animation of the grids of samples that training left in a run's folder.

    Returns:
        Paths of the last grid and of the animation in the folder, with captions; empty without grids.
    """
    grids = sorted(Path(folder, SAMPLES).glob("step-*.png"))
    if not grids:
        return {}
    figures = {
        f"{SAMPLES}/{grids[-1].name}": "Samples at the end; where there are classes, a row is a class and a column a draw"
    }
    if len(grids) > 1:
        animate(grids, Path(folder, ANIMATION))
        figures[ANIMATION] = f"The same latent variables at {len(grids)} times of the training"
    return figures


def animate(pictures: Sequence[Path], path: Path) -> None:
    """Writes pictures of one size as a GIF that shows them in turn, the last one longest."""
    frames = [PIL.Image.open(picture).convert("RGB") for picture in pictures]
    durations = [MILLISECONDS] * (len(frames) - 1) + [5 * MILLISECONDS]
    with whole_file(path) as aside:
        frames[0].save(aside, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
