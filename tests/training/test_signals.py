"""A run that is told to stop: where it stops, what it leaves, what it says, and that it goes on as if nothing had been."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from hf_geo import GeoTrainer
from hf_geo.checkpoints.listing import list_checkpoints
from hf_geo.checkpoints.store import fault
from hf_geo.training.signals import SIGNALS, StoppedBySignal
from tests.training.launching import launch, launch_or_fail
from tests.training.problems import flat, make_trainer
from tests.training.run_signals import SENT_AT, UPDATES

SCRIPT = Path(__file__).with_name("run_signals.py")


@pytest.fixture(autouse=True)
def interrupts_count():
    """A shell that starts the tests in the background has them ignore SIGINT, and what they start as well."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Kill(TrainerCallback):
    """Sends this process a signal at the given updates, before their optimizer's step."""

    def __init__(self, number: int, steps: tuple[int, ...] = (3,)) -> None:
        self.number, self.steps = number, steps

    def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
        if state.global_step + 1 in self.steps:
            os.kill(os.getpid(), self.number)


def start(folder: Path, *callbacks: TrainerCallback, **settings) -> GeoTrainer:
    defaults = {"max_steps": 8, "logging_strategy": "no", "optim": "fromage", "lr_scheduler_type": "linear"}
    return make_trainer(folder, None, *callbacks, dropout=0.3, **(defaults | settings))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> torch.Tensor:
    """What a run ends with when nothing happens."""
    trainer = start(tmp_path_factory.mktemp("unbroken"))
    trainer.train()
    return flat(trainer.model)


# Not at the end of an epoch, and one that is: five updates each.
@pytest.mark.parametrize(("number", "step"), [*((number, 3) for number in SIGNALS), (signal.SIGTERM, 5)])
def test_the_update_is_finished_and_saved_and_the_run_goes_on_from_there(
    tmp_path, capfd, weights, number, step
) -> None:
    before, run = [signal.getsignal(each) for each in SIGNALS], tmp_path / "run"
    with pytest.raises(StoppedBySignal) as stopped:
        start(run, Kill(number, (step,))).train()
    assert stopped.value.code == 128 + number
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert [path.name for path in list_checkpoints(run)] == [f"checkpoint-{step}"]
    said = capfd.readouterr().err
    assert f"{number.name}: saving after this update; again to stop at once." in said
    assert f"Stopped by {number.name} after update {step}; it is saved in {run}/checkpoint-{step}." in said
    assert "--resume_from_checkpoint true" in said
    resumed = start(run)
    resumed.train(resume_from_checkpoint=True)
    assert torch.equal(flat(resumed.model), weights)


def test_what_is_due_at_that_update_is_not_waited_for_and_the_logs_are_closed(tmp_path) -> None:
    class Seen(TrainerCallback):
        names: tuple[str, ...] = ()

        def on_evaluate(self, *_, **__) -> None:
            self.names += ("evaluate",)

        def on_save(self, *_, **__) -> None:
            self.names += ("save",)

        def on_train_end(self, *_, **__) -> None:
            self.names += ("end",)

    seen = Seen()
    every = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
    with pytest.raises(StoppedBySignal):
        start(tmp_path, Kill(signal.SIGTERM), seen, save_total_limit=1, load_best_model_at_end=True, **every).train()
    assert seen.names == ("save", "end")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-3"]


def test_a_repeated_signal_is_one_request_for_a_second_then_acts_as_ever(tmp_path) -> None:
    with pytest.raises(StoppedBySignal):
        start(tmp_path / "one", Kill(signal.SIGINT), Kill(signal.SIGINT)).train()

    class Late(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
            if state.global_step == 2:
                time.sleep(1.1)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "two", Kill(signal.SIGINT), Late()).train()
    assert not list_checkpoints(tmp_path / "two")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_the_process_was_told_to_ignore_stays_ignored(tmp_path) -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        start(tmp_path, Kill(signal.SIGUSR1)).train()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_trainer_in_a_thread_leaves_signals_alone(tmp_path) -> None:
    trainer, before = start(tmp_path), [signal.getsignal(each) for each in SIGNALS]
    during = []

    class Look(TrainerCallback):
        def on_step_end(self, *_, **__) -> None:
            during.append([signal.getsignal(each) for each in SIGNALS])

    trainer.add_callback(Look())
    thread = threading.Thread(target=trainer.train)
    thread.start()
    thread.join()
    assert trainer.state.global_step == 8 and during == [before] * 8


def test_data_loader_workers_ignore_the_signals_of_a_job(tmp_path) -> None:
    class Seen(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> dict[str, bool]:
            return {"x": all(signal.getsignal(number) == signal.SIG_IGN for number in SIGNALS)}

    trainer = make_trainer(tmp_path, data=Seen(), dataloader_num_workers=1)
    for loader in (trainer.get_train_dataloader(), trainer.get_eval_dataloader(Seen())):
        assert all(batch["x"].all() for batch in loader)


def test_what_cannot_be_saved_is_not_said_to_be(tmp_path, capfd) -> None:
    class Spoil(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
            if state.global_step == 4:
                next(model.parameters()).data[0] = torch.nan  # no checkpoint is made of that

    with pytest.raises(StoppedBySignal):
        start(tmp_path, Kill(signal.SIGTERM, (4,)), Spoil(), save_strategy="steps", save_steps=2).train()
    said = capfd.readouterr().err
    assert "after update 4; it could not be saved, the last checkpoint is checkpoint-2. Go on" in said


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict[int, torch.Tensor]:
    """What runs of one and of two processes end with when nothing happens."""
    folder, found = tmp_path_factory.mktemp("unbroken"), {}
    for processes in (1, 2):
        launch_or_fail(SCRIPT, folder / "weights", folder / f"run-{processes}", processes=processes)
        found[processes] = load_file(folder / "weights")["weights"]
    return found


# Who gets the signal, in how many processes, with how many data-loader workers, and the update after which it stops.
JOBS = [
    ("--whom=job --signal=SIGTERM --workers=2", 1, SENT_AT + 1, 128 + signal.SIGTERM),
    ("--whom=job --signal=SIGINT --signal=SIGINT --workers=2", 1, SENT_AT + 1, 128 + signal.SIGINT),
    ("--whom=self --rank=1 --signal=SIGTERM", 2, SENT_AT + 2, 1),
    ("--whom=launcher --signal=SIGTERM --workers=1", 2, SENT_AT + 2, 1),
    ("--whom=launcher --signal=SIGINT", 2, SENT_AT + 2, 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "processes", "stops", "status"), JOBS, ids=[job[0] for job in JOBS])
def test_all_of_a_job_stop_at_one_update_and_resume(unbroken, tmp_path, words, processes, stops, status) -> None:
    run, weights = tmp_path / "run", tmp_path / "weights"
    done = launch(SCRIPT, weights, run, *words.split(), processes=processes)
    assert done.returncode == status, done.stderr[-3000:]
    assert [path.name for path in list_checkpoints(run)] == [f"checkpoint-{stops}"] and not weights.exists()
    assert fault(run / f"checkpoint-{stops}") is None
    assert done.stderr.count("--resume_from_checkpoint true") == 1 and "DataLoader worker" not in done.stderr
    launch_or_fail(SCRIPT, weights, run, "--resume", processes=processes)
    assert stops < UPDATES and torch.equal(load_file(weights)["weights"], unbroken[processes])
