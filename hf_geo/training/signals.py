"""A run that gets a signal to stop ends after the update at hand, with a checkpoint to resume from.

SIGTERM (schedulers, `docker stop`, `kill`), SIGINT (Ctrl-C) and SIGUSR1 (Slurm's `--signal=USR1@60`) mean the same while
`train` runs: finish the update, skip an evaluation that is due, write a checkpoint, say how to resume, and exit with 128 plus
the signal's number. A second signal, more than a second later, has its usual effect; `srun` and `scancel` send each one twice.

A signal that is sent to a launcher may not arrive. `accelerate launch` with one process forwards nothing: signal the training
process, or start with `python`. With several processes it is torchrun, which forwards SIGTERM and SIGINT, waits 30 seconds
(PET_SHUTDOWN_TIMEOUT=300 gives more), then sends SIGKILL; PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGUSR1 adds SIGUSR1.
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

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback

from hf_geo.checkpoints.listing import list_checkpoints

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
_REPEAT_WINDOW = 1.0  # seconds


class StoppedBySignal(SystemExit):
    """Training was stopped by a signal; the exit status is 128 plus the signal's number, as a shell has it."""


class StopOnSignal(TrainerCallback):
    """Ends a Trainer's training with a checkpoint and `StoppedBySignal` when the process gets a signal to stop.

    It is entered around `train`, and is then the last of the Trainer's callbacks, so that the others have seen the
    checkpoint before it raises. With several processes all stop at the same update, whichever of them got the signal.

    Args:
        trainer: The Trainer.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._signal = StopSignal()
        self._consensus = StopConsensus(trainer.args.ddp_timeout) if trainer.args.world_size > 1 else None
        self._stopping = 0

    def __enter__(self) -> "StopOnSignal":
        self._trainer.add_callback(self)
        self._signal.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self._signal.__exit__()
        self._trainer.remove_callback(self)
        consensus, self._consensus = self._consensus, None  # a traceback would hold its process group
        if consensus and error is None:  # after an error the other processes may not come
            consensus.close()
        if isinstance(error, StoppedBySignal):
            trainer = self._trainer
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)  # closes the logs
            trainer.accelerator.wait_for_everyone()  # launchers kill all processes as soon as one has gone
            if trainer.is_world_process_zero():
                report_stop(error, trainer.args.output_dir, trainer.state.global_step)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        number = self._signal.number
        self._stopping = self._consensus.poll(number) if self._consensus else number
        if self._stopping:
            control.should_save, control.should_evaluate = True, False

    on_epoch_end = on_step_end

    def on_save(self, args, state, control, **kwargs) -> None:
        if self._stopping:
            raise StoppedBySignal(128 + self._stopping)


class StopSignal:
    """Remembers, inside the context, the first signal that asks the process to stop.

    Handlers are installed in the main thread alone: in another one, signals are the program's own business. A signal that
    the process was started to ignore stays ignored.

    Attributes:
        number: The signal's number; 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._received_at = 0.0
        self._process = os.getpid()
        self._previous_handlers: dict[int, Callable | int] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            # None stands for a handler that is not Python's, which could not be restored.
            self._previous_handlers = {
                n: handler for n, handler in handlers.items() if handler not in (signal.SIG_IGN, None)
            }
            for number in self._previous_handlers:
                signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked data-loader worker has this handler too
            return
        if not self.number:
            self.number, self._received_at = number, time.monotonic()
            if os.environ.get("RANK", "0") == "0":
                # A handler may interrupt `print`, which cannot be entered twice.
                name = signal.Signals(number).name
                os.write(2, f"\n{name}: saving after this update; again to stop at once.\n".encode())
        elif time.monotonic() - self._received_at > _REPEAT_WINDOW:
            self.__exit__()
            signal.raise_signal(number)


class StopConsensus:
    """Tells all processes, at the same call of `poll`, the signal that any one of them got.

    The reduction of one integer starts at the end of an update and is read when the next one ends, so that neither the
    device nor the host waits for it: a run stops one update later than a single process.

    Args:
        timeout: Seconds to wait for the other processes.
    """

    def __init__(self, timeout: int) -> None:
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        self._highest = torch.zeros(1, dtype=torch.int32)
        self._reduction: dist.Work | None = None

    def poll(self, number: int) -> int:
        """Returns the highest number that a process gave at the call before, and takes this one for the next."""
        if self._reduction:
            self._reduction.wait()
        agreed = int(self._highest)
        self._highest = torch.tensor([number], dtype=torch.int32)
        self._reduction = dist.all_reduce(self._highest, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return agreed

    def close(self) -> None:
        """Ends the last reduction and releases the process group."""
        if self._reduction:
            self._reduction.wait()
        dist.destroy_process_group(self._group)


def report_stop(stopped: StoppedBySignal, run: str, step: int) -> None:
    """Prints where a stopped run is saved and how to resume it."""
    saved = [path.name for path in list_checkpoints(run)]
    how = "Go on with the same command and --resume_from_checkpoint true (in place of --overwrite, if that was given)."
    if f"checkpoint-{step}" in saved:
        where = f"it is saved in {os.path.join(run, f'checkpoint-{step}')}"
    elif saved:
        where = f"it could not be saved, the last checkpoint is {saved[-1]}"
    else:
        where, how = "it could not be saved", "There is no checkpoint to go on from."
    name = signal.Signals(stopped.code - 128).name
    print(f"Stopped by {name} after update {step}; {where}. {how}", file=sys.stderr, flush=True)


def protect_workers(loader: DataLoader) -> DataLoader:
    """Makes a loader's workers ignore stop signals, which Ctrl-C and schedulers send to them as well.

    Otherwise a worker would end before the Trainer has saved, and torch would end the Trainer with it. torch ends the
    workers by itself when the loader or the parent process ends.
    """
    inner = getattr(loader, "base_dataloader", loader)  # accelerate wraps the loader that starts workers
    if inner.num_workers:
        inner.worker_init_fn = partial(_ignore_stop_signals, inner.worker_init_fn)
    return loader


def _ignore_stop_signals(init: Callable[[int], None] | None, worker: int) -> None:
    """Initializes a worker with `init`, if there is one."""
    if init is not None:
        init(worker)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
