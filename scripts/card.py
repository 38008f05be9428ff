# /// script
# dependencies = ["hf_geo"]
# [tool.uv.sources]
# hf_geo = { path = "..", editable = true }
# ///
"""Makes the figures and the model card of a finished run again, from the results in its folder.

    python scripts/card.py outputs/quickstart

For a run whose card or figures could not be made, were lost, or are older than this package's templates.
"""

import sys
from collections.abc import Sequence

from hf_geo.checkpoints.placing import place_result
from hf_geo.cli.options import OptionParser, add_trust, program_name
from hf_geo.cli.output import protect_output
from hf_geo.cli.user_errors import one_sentence_errors
from hf_geo.hub.describe import describe


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns its exit status: 1 where something could still not be made."""
    protect_output()
    parser = OptionParser(prog=program_name(__file__), description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="output folder of a finished run")
    add_trust(parser.add_argument)
    options = parser.parse_args(argv)
    with one_sentence_errors(parser.prog):
        place_result(options.folder)
        found = describe(options.folder, trust_remote_code=options.trust_remote_code)
    print("\n".join(f"  wrote {options.folder}/{name}" for name in dict.fromkeys(found.made)))
    return 1 if found.missing else 0


if __name__ == "__main__":
    sys.exit(main())
