"""Runs that were killed at random instants, and resumed until they ended, end bit-identical to one that was not."""

import pytest

from tests.reliability.campaign import campaign


@pytest.mark.slow
@pytest.mark.parametrize("processes", (1, 2), ids=("1 process", "2 processes"))
def test_nothing_is_lost(request, tmp_path, processes: int) -> None:
    kills = (request.config.getoption("campaign", 12) + 1) // 2  # half of them for each number of processes
    figures = campaign(tmp_path, kills, processes)
    print(figures)
    assert figures["kills"] >= kills
