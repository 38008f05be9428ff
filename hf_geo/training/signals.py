"""A run that is told to stop ends after the update at hand, with a checkpoint to go on from.

SIGTERM (schedulers, `docker stop`, `kill`), SIGINT (Ctrl-C) and SIGUSR1 (Slurm's `--signal=USR1@60`) mean the same while
`train` runs: finish the update, write a checkpoint, say how to go on, and exit with 128 plus the signal's number. A second
one, more than a second later, does what it would have done without this. An evaluation due at that update is left out.

What launchers make of a signal that is sent to them rather than to the processes that train:

- `accelerate launch` with one process hands nothing on: Ctrl-C reaches the training process through the terminal (the
  prompt may come back before the checkpoint is there), but `kill` ends the launcher alone. Send the signal to the training
  process, or start with `python`.
- With several processes it is torchrun, which hands SIGTERM and SIGINT to all of them, waits 30 seconds, then sends
  SIGKILL. PET_SHUTDOWN_TIMEOUT=300 in its environment gives an update and its checkpoint more time (with recent versions
  of torch), and PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGUSR1 hands SIGUSR1 on, which otherwise ends the launcher alone.
  The launcher itself exits with 1.
- `srun` and `scancel` signal the processes as well as the launcher: what arrives twice within a second counts once.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import NoReturn

import torch
import torch.distributed as dist
from transformers import Trainer

from hf_geo.checkpoints.store import checkpoints

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
_SAME_REQUEST = 1.0  # seconds


class Stopped(SystemExit):
    """Training was stopped by a signal; the exit status is 128 plus the signal's number, as a shell has it."""


class GracefulStop(Trainer):
    """A Trainer whose `train` ends with `Stopped` and a checkpoint when the process is told to stop.

    Handlers are in place while `train` runs, and only in the main thread: in another one, signals are the program's own
    business. A signal that the process was started to ignore stays ignored.

    With several processes all stop at the same update, whichever of them were told. They agree by a reduction of one
    integer on the CPU that starts at the end of each update and is looked at when the next one ends, so that neither the
    device nor the host waits for it: a run stops one update later than alone.
    """

    def train(self, *args, **kwargs):
        """Trains; see the class.

        Raises:
            Stopped: The process got a signal.
        """
        with Told() as self._told:
            self._agreement = Agreement(self.args.ddp_timeout) if _several_processes() else None
            result = super().train(*args, **kwargs)
            if self._agreement:
                self._agreement.close()
            return result

    def _maybe_log_save_evaluate(self, *args, **kwargs) -> None:
        # The end of every update, and of every epoch.
        stop = self._agreement.reach(self._told.signal) if self._agreement else self._told.signal
        if stop:
            self.control.should_save, self.control.should_evaluate = True, False
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if stop:
            self._leave(signal.Signals(stop))

    def _leave(self, stop: signal.Signals) -> NoReturn:
        self.callback_handler.on_train_end(self.args, self.state, self.control)  # closes the logs
        # Launchers kill all processes as soon as one has gone.
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            print(farewell(stop, self.args.output_dir, self.state.global_step), file=sys.stderr, flush=True)
        raise Stopped(128 + stop)

    def _get_dataloader(self, *args, **kwargs):
        loader = super()._get_dataloader(*args, **kwargs)
        inner = getattr(loader, "base_dataloader", loader)  # accelerate's stands around the one that starts workers
        if inner.num_workers and hasattr(signal, "sigwaitinfo"):
            inner.worker_init_fn = partial(leave_signals_to_parent, inner.worker_init_fn)
        return loader


class Told:
    """Remembers, while it is entered, the first signal that tells the process to stop: `signal`, 0 for none."""

    def __init__(self) -> None:
        self.signal = 0
        self._since = 0.0
        self._process = os.getpid()
        self._before: dict[int, Callable | int] = {}

    def __enter__(self) -> "Told":
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            # None is a handler that is not Python's, which could not be put back.
            self._before = {n: handler for n, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
            for number in self._before:
                signal.signal(number, self._tell)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a data-loader worker has this handler too
            return
        if not self.signal:
            self.signal, self._since = number, time.monotonic()
            if os.environ.get("RANK", "0") == "0":
                # `print` is not allowed to be interrupted by itself.
                name = signal.Signals(number).name
                os.write(2, f"\n{name}: saving after this update; again to stop at once.\n".encode())
        elif time.monotonic() - self._since > _SAME_REQUEST:
            self.__exit__()
            signal.raise_signal(number)


class Agreement:
    """What any process was told, known to all of them at the same call."""

    def __init__(self, timeout: int) -> None:
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        self._told = torch.zeros(1, dtype=torch.int32)
        self._reduction: dist.Work | None = None

    def reach(self, told: int) -> int:
        """The highest value that any process gave at the call before; takes this process's for the next."""
        if self._reduction:
            self._reduction.wait()
        agreed = int(self._told)
        self._told = torch.tensor([told], dtype=torch.int32)
        self._reduction = dist.all_reduce(self._told, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return agreed

    def close(self) -> None:
        if self._reduction:
            self._reduction.wait()
        dist.destroy_process_group(self._group)


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def farewell(stop: signal.Signals, run: str, step: int) -> str:
    """What a stopped run says at last: where it is saved and how to go on."""
    saved = [path.name for path in checkpoints(run)]
    if f"checkpoint-{step}" in saved:
        where = f"it is saved in {os.path.join(run, f'checkpoint-{step}')}"
    else:
        where = f"it could not be saved, the last checkpoint is {saved[-1]}" if saved else "it could not be saved"
    how = (
        "Go on with the same command and --resume_from_checkpoint true (in place of --overwrite, if that was given)."
        if saved
        else "There is no checkpoint to go on from."
    )
    return f"Stopped by {stop.name} after update {step}; {where}. {how}"


def leave_signals_to_parent(init: Callable[[int], None] | None, worker: int) -> None:
    """Runs in a data-loader worker as it starts: what tells the whole job to stop does not end it under the Trainer's hands.

    Only the parent's own SIGTERM ends it; when the parent dies, torch ends it too.

    Args:
        init: What else to run.
        worker: The worker's number.
    """
    if init is not None:
        init(worker)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo(SIGNALS).si_pid != os.getppid():
        pass
    os._exit(0)
