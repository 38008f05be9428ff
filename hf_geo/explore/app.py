"""Opens a page in the browser to explore a trained network or subspace.

    python scripts/explore.py outputs/quickstart_line
    python scripts/explore.py outputs/quickstart_line --export_space outputs/space
    python scripts/push.py outputs/space NAMESPACE/NAME

On a line, curve or simplex you choose the position. All positions (--positions, 21 by default) are measured before the page
opens, whatever an evaluation.json in the folder says. The data are those of the run (training_args.json) unless --dataset names
others. Needs gradio: pip install 'hf_geo[explore]'.
"""

import argparse
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_geo.checkpoints.placing import place_result
from hf_geo.cli.options import at_least, program_name
from hf_geo.cli.output import protect_output
from hf_geo.cli.trained import display_names, evaluation_options, parse_trained
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.data.config import DataArguments
from hf_geo.evaluation.plans import plan_walk
from hf_geo.models.sources import ModelSource
from hf_geo.resources import command_line
from hf_geo.subspaces import Subspace
from hf_geo.tasks import EvaluationSetup, find_trained, infer_task, open_trained, read_run_settings

from .charts import geometry_charts, training_charts
from .exploration import Exploration
from .space import check_space, export_space

if TYPE_CHECKING:
    from .page import Page

PROG = program_name("explore.py")
SUBSPACE = "subspace_config.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with one_sentence_errors(PROG):
        options, data_args = parse(argv)
        source = find_trained(options.model[0])
        if options.export_space is not None:
            if options.port is not None:
                raise ValueError("--export_space opens no page: leave --port out.")
            check_space(Path(options.export_space), data_args)
            open_model(source, data_args, options)  # a page that cannot open here opens nowhere
            written = export_space(Path(options.export_space), source, data_args, options)
            print(f"  wrote {written}\n  push it: {command_line('push', options.export_space)} NAMESPACE/NAME")
            return 0
        if options.port is not None:
            check_port(options.port)
        page = open_page(source, data_args, options)
        launch(page, options.port)
    return 0


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, DataArguments]:
    """Parses the command line.

    Raises:
        ImportError: gradio is not installed.
        ValueError: There is no such model, or nothing says which data to show.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the first import: nothing is reported to anyone
    options, data_args = parse_trained(
        argv,
        add_options,
        several=False,
        prog=PROG,
        usage=f"{PROG} FOLDER_OR_ID [--OPTION VALUE ...]",
        description=__doc__,
    )
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ImportError(f"The page needs gradio ({error}): pip install 'hf_geo[explore]'.") from error
    place_result(options.model[0])
    return options, data_args


def add_options(add: Callable[..., argparse.Action]) -> None:
    """Adds the script's own options."""
    add("--positions", type=at_least(2), default=21, metavar="N", help="Positions of a subspace to measure.")
    add("--port", type=at_least(1), metavar="N", help="Port of the page. Default: the first free one from 7860 on.")
    add(
        "--export_space", metavar="DIR", help="Write a Space for the Hub into a new folder instead of opening the page."
    )


def open_model(
    source: ModelSource, data_args: DataArguments, options: argparse.Namespace
) -> tuple[EvaluationSetup, Subspace | None]:
    """Opens a trained model and its data, and checks that the page can show them before anything is measured.

    Returns:
        The model and its data, and its subspace, if it has one.

    Raises:
        ValueError: They cannot be opened, have no samples to show, or --positions is too small.
    """
    setup = open_trained([source], data_args, evaluation_options(options))
    if setup.view is None:
        raise ValueError(
            f"{source.name!r} classifies no images or texts and continues no text, which is what the page shows: use "
            "scripts/evaluate.py."
        )
    subspace = Subspace.load(source.name, setup.models[0]) if source.has_file(SUBSPACE) else None
    if subspace is not None:
        plan_walk(subspace, options.positions, options.seed)
    return setup, subspace


def open_page(source: ModelSource, data_args: DataArguments, options: argparse.Namespace) -> "Page":
    """Opens a trained model, measures it, and builds its page.

    Raises:
        ValueError: The model and the data cannot be opened, or have no samples to show.
    """
    from .page import Page

    setup, subspace = open_model(source, data_args, options)
    exploration = Exploration(
        setup,
        subspace,
        positions=options.positions,
        seed=options.seed,
        recalibration_batches=options.recalibration_batches or None,
    )
    settings = read_run_settings(source)
    what = f"{source.architecture or source.config.get('model_type')} network"
    if subspace is not None:
        config = subspace.config
        what = f"{'layer-wise ' if config.layerwise else ''}{config.kind} of {what}s with {config.num_points} control points"
    trained = f", trained with {settings['optim']}" if settings.get("optim") else ""
    samples = f"{exploration.found.samples:,} {'tokens' if exploration.causal else 'samples'}"
    lines = [f"A {what}{trained}; evaluated on {samples} of the {setup.split} split of {setup.dataset}."]
    log, metric = read_log(source), infer_task(options.model[0], options.dataset).metric
    return Page(exploration, display_names(options.model)[0], lines, training_charts(log, metric), geometry_charts(log))


def read_log(source: ModelSource) -> list[dict[str, Any]]:
    """The log of a model's training; empty where it was not kept.

    Raises:
        ValueError: It is damaged.
    """
    path = source.find_file("trainer_state.json")
    if path is None:
        return []
    try:
        return json.loads(path.read_text(encoding="utf-8"))["log_history"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is no log of a training ({error!r}): remove it, or copy it again.") from error


def check_port(port: int) -> None:
    """Raises `ValueError` if a port cannot be used."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "ports go up to 65535"
            raise ValueError(
                f"Port {port} cannot be used ({reason}): choose another --port, or leave it out."
            ) from error


def launch(page: "Page", port: int | None, *, block: bool = True) -> str:
    """Serves the page on this machine; returns its address.

    Args:
        page: The page.
        port: Its port; None for the first free one.
        block: Serve until the process is interrupted.
    """
    from .page import STYLE, THEME

    _, url, _ = page.blocks.launch(
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        footer_links=[],
        ssr_mode=False,
        max_file_size="20mb",
        theme=THEME,
        css=page.css,
        css_paths=[STYLE],
    )
    if block:
        print(f"Open {url} in a browser; Ctrl-C ends it.", flush=True)
        page.blocks.block_thread()
    return url


if __name__ == "__main__":
    sys.exit(main())
