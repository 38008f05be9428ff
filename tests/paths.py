"""Where tests find things, whatever directory they are run from."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "hf_geo"
SHARED = REPOSITORY.parent / "shared"
GOLDEN = SHARED / "golden"
