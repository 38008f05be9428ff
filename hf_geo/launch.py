"""Runs a script in which transformers and timm know the optimizers' names.

    python -m hf_geo.launch script.py --optim fromage ...
    accelerate launch -m hf_geo.launch script.py --optim fromage ...

The script itself needs no change, as long as it trains with `transformers.Trainer` or a subclass of it, or makes its
optimizer with timm as timm's own train.py does (with any method but ALI-G, to which that gives no loss).
"""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from hf_geo.integrations import register_timm, register_transformers
from hf_geo.integrations.timm import NeedsLossError


def main(argv: Sequence[str] | None = None) -> None:
    """Registers the names, then runs `argv[0]` as the main program with the rest as its arguments."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__.strip())
        raise SystemExit(0 if argv else 2)
    if not Path(argv[0]).is_file():
        print(f"hf_geo.launch: error: there is no script {argv[0]!r}", file=sys.stderr)
        raise SystemExit(2)
    register_transformers()
    register_timm(closures=False)
    sys.argv = argv
    sys.path.insert(0, str(Path(argv[0]).resolve().parent))
    try:
        runpy.run_path(argv[0], run_name="__main__")
    except NeedsLossError as error:
        print(f"hf_geo.launch: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
