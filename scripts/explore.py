# /// script
# dependencies = ["hf_geo[explore]"]
# [tool.uv.sources]
# hf_geo = { path = "..", editable = true }
# ///
"""Opens a page in the browser to explore a trained network or subspace; see hf_geo/explore.

python scripts/explore.py outputs/quickstart_line
python scripts/explore.py outputs/quickstart_line --export_space outputs/space
"""

import sys

from hf_geo.explore.app import main

if __name__ == "__main__":
    sys.exit(main())
