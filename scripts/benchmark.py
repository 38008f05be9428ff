# /// script
# dependencies = ["hf_geo"]
# [tool.uv.sources]
# hf_geo = { path = "..", editable = true }
# ///
"""Measures speed and memory, as ratios of alternatives timed side by side in one run.

python scripts/benchmark.py optim         optimizer steps, compared with torch's fused AdamW and SGD
python scripts/benchmark.py subspaces     training steps on subspaces compared with plain ones, and walks
python scripts/benchmark.py language      words per second of the word-level Transformer, compared with PyTorch's example
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_geo.cli.options import OptionParser, program_name
from hf_geo.cli.output import protect_output

SUBJECTS = ("optim", "subspaces", "language")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status."""
    protect_output()
    sys.path.insert(0, str(Path(__file__).parent))  # needed if this file was imported from elsewhere
    parser = OptionParser(prog=program_name(__file__), description=__doc__)
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="SUBJECT")
    for name in SUBJECTS:
        module = importlib.import_module(f"benchmark_{name}")
        subject = subjects.add_parser(name, help=module.__doc__.splitlines()[0], description=module.__doc__)
        module.add_arguments(subject)
        subject.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    arguments.run(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
