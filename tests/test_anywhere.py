"""From anywhere: the wheel outside the clone, and a fresh clone with uv alone."""

import pytest

pytestmark = pytest.mark.slow
