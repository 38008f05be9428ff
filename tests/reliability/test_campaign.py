"""Runs that were killed at random instants, and resumed until they ended, end bit-identical to one that was not."""

import json

import pytest

from tests.training.launching import launch_or_fail


@pytest.mark.slow
@pytest.mark.parametrize("processes", (1, 2), ids=("1 process", "2 processes"))
def test_nothing_is_lost(request, tmp_path, processes: int) -> None:
    kills = (request.config.getoption("campaign", 12) + 1) // 2  # half of them for each number of processes
    done = launch_or_fail("-m", "tests.reliability.campaign", tmp_path, kills, processes, timeout=10 * kills + 300)
    print(done.stdout)
    assert json.loads(done.stdout.splitlines()[-1])["kills"] >= kills
