"""torch's laws for optimizers hold for the seven classes: torch_contract.py, in a process of its own."""

import re
from pathlib import Path

import pytest

from tests.training.launching import launch_or_fail


@pytest.mark.slow
def test_torch_s_laws_for_optimizers_hold() -> None:
    done = launch_or_fail("-m", "pytest", "-q", "-p", "no:cacheprovider", Path(__file__).with_name("torch_contract.py"))
    outcomes = re.findall(r"\d+ (\w+)", done.stdout.splitlines()[-1].split(" in ")[0])
    assert set(outcomes) <= {"passed", "warning", "warnings"} and outcomes[0] == "passed", done.stdout
