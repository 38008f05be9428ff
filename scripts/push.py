# /// script
# dependencies = ["hf_geo"]
# [tool.uv.sources]
# hf_geo = { path = "..", editable = true }
# ///
"""Pushes a finished run, or a Space of explore.py, to the Hugging Face Hub: for runs made offline, or whose own push failed.

    python scripts/push.py runs/digits ada/digits-fromage
    python scripts/push.py runs/digits ada/digits-fromage --private
    python scripts/push.py runs/digits ada/digits-fromage --checkpoints last
    python scripts/push.py runs/digits --local_dir outputs/pushed

Log in first with `hf auth login`, or set HF_TOKEN to a token with write permission.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from hf_geo.checkpoints.placing import place_result
from hf_geo.cli.options import OptionParser, program_name
from hf_geo.cli.output import protect_output
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.hub.contents import copy_contents, is_adapter, is_space, read_config
from hf_geo.hub.loading import loading_lines
from hf_geo.hub.push import push_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    parser = OptionParser(prog=program_name(__file__), description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="output folder of a finished run, or a Space")
    parser.add_argument("repo_id", nargs="?", metavar="REPO_ID", help="NAMESPACE/NAME, or NAME in your own namespace")
    parser.add_argument(
        "--local_dir",
        type=Path,
        metavar="DIR",
        help="write what the repository would have into a new folder, without the Hub, a REPO_ID or a token",
    )
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--commit_message", help="title of the commit (default: what is uploaded)")
    parser.add_argument(
        "--checkpoints",
        choices=("none", "last", "all"),
        default="none",
        help="push the newest checkpoint too, as last-checkpoint, or all of them under their names",
    )
    arguments = parser.parse_intermixed_args(argv)  # an option may stand between the two names
    if (arguments.repo_id is None) == (arguments.local_dir is None):
        parser.error("give either REPO_ID, the repository to push to, or --local_dir, a new folder")
    for name in ("private", "commit_message"):
        if arguments.local_dir is not None and getattr(arguments, name) is not None:
            parser.error(f"--{name} is for a repository: leave it out, or push to a REPO_ID")
    with one_sentence_errors(parser.prog):
        place_result(arguments.folder)
        if arguments.local_dir is not None:
            copy_contents(arguments.folder, arguments.local_dir, arguments.checkpoints)
            print(f"Wrote what {arguments.folder} would push to {arguments.local_dir}")
            return 0
        url = push_folder(
            arguments.folder,
            arguments.repo_id,
            private=arguments.private,
            commit_message=arguments.commit_message,
            checkpoints=arguments.checkpoints,
        )
    print(f"Pushed {arguments.folder} to {url}")
    if is_space(arguments.folder):
        return 0
    print("Its card says how to open it, in short:")
    for line in how_to_open(arguments.folder, repo_id="/".join(url.split("/")[-2:])):
        print(f"    {line}")
    return 0


def how_to_open(folder: Path, repo_id: str) -> list[str]:
    """Returns lines of Python that load the pushed model, as its `config.json` says."""
    config, card = read_config(folder), folder / "README.md"
    if is_adapter(folder):
        return [f'peft.PeftModel.from_pretrained(model, "{repo_id}")  # of {config["base_model_name_or_path"]}']
    needs_hf_geo = card.is_file() and "import hf_geo.models" in card.read_text("utf-8")
    return loading_lines(config, repo_id, f"hf-hub:{repo_id}", needs_hf_geo=needs_hf_geo)


if __name__ == "__main__":
    sys.exit(main())
