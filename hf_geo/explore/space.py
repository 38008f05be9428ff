"""A folder that the Hub runs as a Space: the page, the package, and the model unless the Hub has it."""

import argparse
import dataclasses
import importlib.metadata
import re
import shutil
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData
from huggingface_hub.utils import filter_repo_objects

import hf_geo
from hf_geo.checkpoints.results import save_result
from hf_geo.cli.trained import display_names, is_known_anywhere
from hf_geo.data.config import DataArguments
from hf_geo.embedded import EMBEDDED
from hf_geo.hub.contents import NOT_PUSHED
from hf_geo.models.sources import ModelSource

MODEL = "model"  # the folder that has the one of a model that is not on the Hub
APP = '''"""The page of {name}, made by scripts/explore.py of hf_geo."""

import sys

from hf_geo.explore.app import main

sys.exit(main({arguments!r}))
'''


def check_space(folder: Path, data_args: DataArguments) -> None:
    """Raises `ValueError` if the folder has files, or the data are only on this machine."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--export_space {str(folder)!r} is not empty: name a new folder.")
    name = data_args.dataset
    if (name not in EMBEDDED and Path(name).is_dir()) or not is_known_anywhere(name):
        raise ValueError(
            f"The data {name!r} are on this machine alone, and a Space needs some that it can open: push them to the "
            "Hub, and name their id with --dataset."
        )


def export_space(folder: Path, source: ModelSource, data_args: DataArguments, options: argparse.Namespace) -> str:
    """Writes `app.py`, `requirements.txt`, `README.md`, this package, and the model of a local folder.

    The package comes along because no registry needs to have its release.

    Args:
        folder: New, or empty, see `check_space`.
        source: The model.
        data_args: The data that the page shows.
        options: The parsed command line; what it sets is set in the Space.

    Returns:
        What was written, in words.

    Raises:
        ValueError: The folder cannot be written.
    """
    name = display_names(options.model)[0]
    on_hub = source.kind == "hub"
    failure = save_result(folder, lambda path: _write(path, source, data_args, options, name), first=True)
    if failure:
        raise ValueError(f"The Space could not be written to {str(folder)!r}, because {failure}: name another folder.")
    return f"{folder}: app.py, requirements.txt, README.md, hf_geo{'' if on_hub else ' and the model'}"


def _write(folder: Path, source: ModelSource, data_args: DataArguments, options: argparse.Namespace, name: str) -> None:
    on_hub = source.kind == "hub"
    fields = [field.name for field in dataclasses.fields(DataArguments)]
    kept = [*fields, "positions", "recalibration_batches", "batch_size", "seed", "trust_remote_code"]
    given = {"dataset", *options.given} & set(kept)
    model = f"{MODEL}/{_plain(name)}"  # the page is headed by the last part
    arguments = [source.name if on_hub else model]
    for option in kept:
        if option in given:
            arguments += _words(option, getattr(options, option))
    (folder / "app.py").write_text(APP.format(name=_plain(name), arguments=arguments), encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    card = SpaceCardData(
        title=f"Explore {_plain(name)}",
        sdk="gradio",
        sdk_version=importlib.metadata.version("gradio"),
        app_file="app.py",
        license="apache-2.0" if on_hub else source.license,  # the package's, and of the model that comes along its own
        models=[source.name.partition("@")[0]] if on_hub else None,
        datasets=[data_args.dataset] if "/" in data_args.dataset else None,
        tags=["hf_geo"],
        emoji="📐",
        colorFrom="blue",
        colorTo="yellow",
    )
    text = f"---\n{card.to_yaml()}\n---\n\nA page to explore {_plain(name)}, made by hf_geo {hf_geo.__version__}.\n"
    (folder / "README.md").write_text(str(SpaceCard(text)), encoding="utf-8")
    package = Path(hf_geo.__file__).parent
    shutil.copytree(package, folder / "hf_geo", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    if not on_hub:
        files = (path.relative_to(source.name).as_posix() for path in Path(source.name).rglob("*") if path.is_file())
        for file in filter_repo_objects(sorted(files), ignore_patterns=[*NOT_PUSHED, "README.md", "figures/*"]):
            target = folder / model / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(source.name, file), target)


def requirements() -> list[str]:
    """What the package needs; the Space's settings name gradio."""
    needed = (requirement.partition(";") for requirement in importlib.metadata.requires("hf_geo") or ())
    return sorted(name.strip() for name, _, marker in needed if "extra" not in marker)


def _words(option: str, value: object) -> list[str]:
    """An option's words of a command line."""
    if isinstance(value, list):
        return [f"--{option}", *map(str, value)]
    return [f"--{option}={str(value).lower() if isinstance(value, bool) else value}"]


def _plain(name: str) -> str:
    """A name that means nothing to YAML, Markdown or Python, and hides no file."""
    return re.sub(r"[^\w ./-]", "", name).strip(" .") or MODEL
