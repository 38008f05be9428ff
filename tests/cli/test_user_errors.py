"""A user's mistake becomes one sentence and exit status 2; a programmer's keeps its traceback."""

import pytest

from hf_geo.cli.user_errors import one_sentence_errors


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "HF_GEO_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("lr must be positive, not -1."), "lr must be positive, not -1."),
        (TypeError("params must be an iterable."), "params must be an iterable."),
        (RuntimeError("Several lines\n\n  of an error"), "Several lines of an error"),
        (FileNotFoundError(2, "No such file", "runs/x"), "[Errno 2] No such file: 'runs/x'"),
        (ConnectionError(), "ConnectionError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_users_mistake_is_one_sentence_and_status_2(error, sentence, capsys):
    with pytest.raises(SystemExit) as stop, one_sentence_errors("train.py"):
        raise error
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"train.py: error: {sentence}\n"


def test_a_programmers_mistake_is_left_alone(capsys):
    for kind in (AttributeError, KeyError, IndexError, AssertionError, NotImplementedError, RecursionError):
        with pytest.raises(kind), one_sentence_errors("train.py"):
            raise kind("?")
    assert capsys.readouterr().err == ""


def test_the_traceback_can_be_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("HF_GEO_TRACEBACK", "1")
    with pytest.raises(ValueError, match="why"), one_sentence_errors("train.py"):
        raise ValueError("why")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("environment", "prints"),
    [
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "1", "LOCAL_RANK": "1"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, True),  # the first process of a second machine
        ({"RANK": "3"}, False),
    ],
)
def test_of_several_processes_the_first_of_a_machine_prints_and_all_exit(environment, prints, monkeypatch, capsys):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as stop, one_sentence_errors("train.py"):
        raise ValueError("why")
    assert stop.value.code == 2
    assert bool(capsys.readouterr().err) == prints
