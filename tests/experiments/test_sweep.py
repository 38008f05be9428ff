"""`scripts/sweep.py`: it runs every trial once, whatever becomes of the others or of the sweep, and reports on them."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from hf_geo.cli.config import parse_command_line
from hf_geo.cli.run_arguments import RUN_ARGUMENTS, resolve_settings
from hf_geo.experiments.records import Records
from hf_geo.experiments.report import format_summary
from hf_geo.experiments.summary import Summary
from hf_geo.experiments.sweep import describe_outcome
from hf_geo.experiments.trials import Trial, combinations, make_trial
from hf_geo.runs.report import write_results
from tests.experiments.sweeps import QUICKSTART, Sweeps, load
from tests.paths import REPOSITORY

GRID = ("--optims=fromage,sgd", "--lrs=10,1,0.1,0.01", "--jobs=2")


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Sweeps:
    sweeps = Sweeps(tmp_path_factory.mktemp("swept"))
    assert sweeps(*GRID) == 0
    return sweeps


def rows(sweeps: Sweeps) -> dict[tuple, pd.Series]:
    table = pd.read_parquet(sweeps.folder / "trials.parquet")
    return {(row.optim, row.learning_rate): row for _, row in table.iterrows()}


def test_every_trial_is_run_whatever_becomes_of_the_others(swept) -> None:
    assert sorted(swept.started[:8]) == sorted((optim, lr) for optim in ("fromage", "sgd") for lr in (10, 1, 0.1, 0.01))
    states = {key: row.state for key, row in rows(swept).items() if row.state != "finished"}
    assert states == {("fromage", 1.0): "failed", ("sgd", 10.0): "failed", ("sgd", 1.0): "diverged"}
    assert rows(swept)["fromage", 1.0].error == "This does not fit."
    assert "died" in rows(swept)["sgd", 10.0].error and "not finite" in rows(swept)["sgd", 1.0].error


def test_the_tables_hold_what_was_measured(swept) -> None:
    for (optim, lr), accuracy in {("fromage", 0.01): 0.9, ("fromage", 0.1): 0.7, ("sgd", 0.01): 0.7}.items():
        row = rows(swept)[optim, lr]
        assert row.eval_accuracy == pytest.approx(accuracy) and row.test_accuracy == pytest.approx(accuracy / 2)
    parquet, csv = (getattr(pd, f"read_{kind}")(swept.folder / f"trials.{kind}") for kind in ("parquet", "csv"))
    pd.testing.assert_frame_equal(parquet, csv, check_dtype=False)


def test_the_report_says_what_was_run_and_what_was_lost(swept) -> None:
    text = (swept.folder / "sweep.md").read_text()
    assert "8 trials of `quickstart.yaml` over optim fromage, sgd; learning rate 0.01, 0.1, 1, 10." in text
    assert "- sgd: `learning" not in text and "`seed` 42" in text
    assert "on an abacus" in text and "`model` resnet10t" in text and "`output_dir`" not in text
    assert "| fromage | 90.00 % | learning rate 0.01 | ≥ 0 (0.01) | ≥ 0 (0.01) | 4 | 1 |" in text
    assert "| sgd | 90.00 % | learning rate 0.1 | 0 (0.1) | 0 (0.1) | 4 | 2 |" in text
    assert "- optim fromage, learning_rate 1 failed: This does not fit." in text
    measured = "train_loss | eval_accuracy | eval_loss | test_accuracy | test_loss"
    assert f"| optim | learning_rate | state | {measured} |" in text
    assert Image.open(swept.folder / "figure.png").size[0] > 600


def test_what_has_ended_is_not_run_again_and_other_values_join_it(swept, capsys) -> None:
    before = len(swept.started)
    assert swept(*GRID) == 0 and len(swept.started) == before
    assert swept("--optims=fromage", "--lrs=0.01,0.001") == 0
    assert swept.started[before:] == [("fromage", 0.001)]
    text = (swept.folder / "sweep.md").read_text()
    assert "learning rate 0.001, 0.01, 0.1, 1, 10 (fromage), 0.01, 0.1, 1, 10 (sgd)." in text
    assert len(rows(swept)) == 9 and ("sgd", 0.1) in rows(swept)
    assert "| fromage | 90.00 % | learning rate 0.01 | 0 (0.01) |" in capsys.readouterr().out


def test_a_sweep_with_other_settings_needs_another_folder(swept, capsys) -> None:
    other_settings = "made with other settings (max_steps is -1 and not 7): choose another --output_dir"
    other_axes = "holds a sweep over optim, learning_rate, not over optim, learning_rate, seed"
    wrong = {(*GRID, "--max_steps=7"): other_settings, ("--optims=sgd", "--lrs=1", "--seeds=1"): other_axes}
    for words, message in wrong.items():
        with pytest.raises(SystemExit) as raised:
            swept(*words)
        assert raised.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process_and_goes_on_where_it_was(tmp_path) -> None:
    sweeps = Sweeps(tmp_path)
    words = ["--optims=fromage,sgd", "--lrs=0.1,0.01"]
    code = f"from tests.experiments.sweeps import Sweeps; from pathlib import Path; Sweeps(Path({str(tmp_path)!r}))(*{words})"
    (tmp_path / "wait").touch()  # the third trial does
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: (tmp_path / "started").exists() and len(sweeps.started) == 3)
        process.kill()
        process.wait()
        worker = int((tmp_path / "started").read_text().split()[-1])
        wait_until(lambda: not is_running(worker))
    finally:
        (tmp_path / "wait").unlink()
    assert sweeps(*words) == 0
    assert sweeps.started == [("fromage", 0.1), ("fromage", 0.01), ("sgd", 0.1), ("sgd", 0.1), ("sgd", 0.01)]
    assert {row.state for row in rows(sweeps).values()} == {"finished"}


def wait_until(holds: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "still waiting"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that has ended but was not waited for does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_optuna_searches_for_each_optimizer_and_goes_on(tmp_path) -> None:
    sweeps = Sweeps(tmp_path)
    words = ("--optims=fromage,sgd", "--lrs=1e-4:0.9", "--trials=3")
    assert sweeps(*words) == 0
    assert sorted(optim for optim, _ in sweeps.started) == ["fromage"] * 3 + ["sgd"] * 3
    assert all(1e-4 <= lr <= 0.9 for _, lr in sweeps.started) and len({lr for _, lr in sweeps.started}) >= 3
    last = sorted((sweeps.folder / "trials").iterdir())[-1]
    record = json.loads((last / "trial.json").read_text())
    (last / "trial.json").write_text(json.dumps(record | {"state": "running"}))  # as a kill would leave it
    assert sweeps(*words) == 0
    assert len(sweeps.started) == 7 and sweeps.started[-1][1] == record["values"]["learning_rate"]
    assert len(rows(sweeps)) == 6


def test_a_sweep_of_real_runs(tmp_path) -> None:
    idle = ("--gamma=0.5", "--lowercase=true")  # as where another value of an axis needs them
    words = ("--model=test_resnet", "--max_steps=2", "--max_eval_samples=32", f"--output_dir={tmp_path}", *idle)
    grid = ("--optims=fromage", "--lrs=0.1,0.01", "--over=model_args.drop_rate=0.1")
    assert load("sweep").main([f"--config={QUICKSTART}", *grid, *words]) == 0
    table = pd.read_parquet(tmp_path / "trials.parquet")
    assert list(table.state) == ["finished"] * 2 and list(table.learning_rate) == [0.01, 0.1]
    settings = json.loads((tmp_path / table.folder[1] / "training_args.json").read_text())
    assert (settings["recipe"], settings["variant"]) == ("quickstart.yaml", None)
    assert settings["model_args"] == "drop_rate=0.1"
    assert (tmp_path / table.folder[0] / "model.safetensors").exists() and "hardware" in table


DEPENDENT = (
    (("--over=loss=cross-entropy,smooth-top-k", "--over=top_k=3,5"), 4),
    (("--over=loss=cross-entropy,smooth-top-k", "--top_k=3"), 2),
    (("--over=label_noise=0,0.2", "--label_noise_seed=0"), 2),
    (("--over=milestones=0.5,0.75", "--over=gamma=0.1,0.2"), 4),
)


@pytest.mark.parametrize(("words", "count"), DEPENDENT)
def test_options_that_only_some_trials_need_are_swept_over(tmp_path, monkeypatch, words, count) -> None:
    sweeps, started = Sweeps(tmp_path), []
    monkeypatch.setattr(sweeps.script, "run_trials", lambda source, *_: started.extend(source.trials.values()))
    monkeypatch.setattr(sweeps.script, "report", lambda *_: 0)
    assert sweeps(*words) == 0 and len(started) == count
    for trial in started:
        *settings, _ = parse_command_line(RUN_ARGUMENTS, trial.arguments)  # as train.py does
        found = {name: value for some in settings for name, value in vars(some).items()}
        assert all(str(found[field]).strip("[]") == str(value) for field, value in trial.values.items())


def test_lists_and_words_beside_numbers_are_reported_as_text(tmp_path) -> None:
    axes = {"color_jitter": ["0", "0.2"], "optim_args.p_bound": ["1", "none"]}
    resolve = partial(resolve_settings, prog="sweep.py", usage="")
    private, words = partial(resolve, public=False), [f"--config={QUICKSTART}"]
    make = partial(make_trial, arguments=words, resolve=resolve, resolve_private=private)
    records = Records(tmp_path)
    for trial in map(make, combinations(axes)):
        run = records.start(trial) / "run"
        write_results(run, train_results={"train_runtime": 1.0}, eval_results={"eval_accuracy": 0.9})
        records.finish(trial, "finished", None)
    table = records.table(records.ended_trials(axes, make))
    table.to_parquet(tmp_path / "trials.parquet")
    assert {field: sorted(set(table[field])) for field in axes} == axes
    summary = Summary(table, list(axes), "eval_accuracy", "color_jitter", ["optim_args.p_bound"])
    assert "| p bound none | 90.00 % | 90.00 % |" in format_summary(summary)


def test_a_metric_that_overflows_is_a_trial_that_diverged(tmp_path) -> None:
    records, trial = Records(tmp_path), Trial({"learning_rate": 1.0}, {"learning_rate": 1.0}, ())
    measured = {"eval_loss": 800.0, "eval_perplexity": math.inf, "eval_tokens": 7}
    write_results(records.start(trial) / "run", train_results={"train_loss": 1.0}, eval_results=measured)
    record = records.finish(trial, "finished", None)
    assert describe_outcome(record, None) == "diverged: Its eval_perplexity is not finite."
    assert records.read(trial) == record


WRONG = {
    "axis": (("--over=learning_rat=1",), "There is no field 'learning_rat' to sweep over; did you mean 'learning_rate'?"),
    "value": (("--optims=sgd,fromag", "--lrs=1"), "Unknown optimizer 'fromag'"),
    "jobs": (("--lrs=1", "--jobs=0"), "--jobs: takes a whole number of at least 1, not '0'"),
    "metric": (("--lrs=1", "--metric=eval_glory"), "It is not known whether a high or a low 'eval_glory' is better"),
    "search over seeds": (("--lrs=0.1", "--seeds=1,2", "--trials=2"), "--trials searches over learning rates"),
}  # fmt: skip


def test_wrong_arguments_end_in_one_sentence_before_anything_runs(tmp_path, capsys) -> None:
    for arguments, message in WRONG.values():
        with pytest.raises(SystemExit) as raised:
            Sweeps(tmp_path)(*arguments)
        lines = capsys.readouterr().err.strip().splitlines()
        assert raised.value.code == 2 and lines[-1].startswith("sweep.py: error: ") and message in lines[-1]
        assert not (tmp_path / "started").exists() and not list((tmp_path / "sweep").glob("trials/*"))


def test_a_metric_that_is_not_measured_ends_the_sweep_and_not_its_trials(tmp_path, capsys) -> None:
    sweeps = Sweeps(tmp_path)
    with pytest.raises(SystemExit) as raised:
        sweeps("--lrs=0.01", "--optims=sgd", "--metric=eval_f1")
    message = "No trial measured 'eval_f1': --metric is one of train_loss, eval_accuracy, eval_loss, test_accuracy, test_loss."
    assert raised.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]
    assert sweeps("--lrs=0.01", "--optims=sgd", "--metric=test_loss") == 0 and len(sweeps.started) == 1
