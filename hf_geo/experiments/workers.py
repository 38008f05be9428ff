"""Worker processes that run a script once for each trial, and the outcome of each call."""

import contextlib
import functools
import importlib.util
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import TypeVar

from .records import DIVERGED, FAILED, FINISHED

Key = TypeVar("Key")
Call = tuple[str, tuple[str, ...], str]  # the arguments of `run_script`
Outcome = tuple[str, str | None]  # a trial's state, and its error if it failed or diverged


def run_all(calls: Iterable[tuple[Key, Call]], jobs: int) -> Iterator[tuple[Key, Outcome]]:
    """Runs scripts in up to `jobs` processes at once, and yields each call's key and outcome as it ends.

    The next call is taken only when a process is free for it and the outcomes so far have been yielded. A process serves
    many calls, so that libraries are imported once. If it dies, its call has failed and a new process takes over.

    Args:
        calls: The arguments of `run_script`, each with a key of the caller's.
        jobs: Number of processes. Each gets one of the GPUs, if there are any, and its share of the CPU cores.
    """
    calls = iter(calls)
    pools = [_new_pool(slot, jobs) for slot in range(jobs)]
    running: dict[Future, tuple[int, Key]] = {}
    try:
        while True:
            busy = {slot for slot, _ in running.values()}
            for slot in set(range(jobs)) - busy:
                if (item := next(calls, None)) is not None:
                    key, call = item
                    running[pools[slot].submit(run_script, *call)] = (slot, key)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                slot, key = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    outcome = FAILED, "The process that ran it died (killed, or out of memory)."
                    pools[slot] = _new_pool(slot, jobs)
                yield key, outcome
    finally:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)


def _new_pool(slot: int, jobs: int) -> ProcessPoolExecutor:
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    gpu = gpus[slot % len(gpus)] if gpus else None
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_initialize, initargs=(gpu, jobs))


def _initialize(gpu: str | None, jobs: int) -> None:
    """Prepares a new worker process."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    elif jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    os.environ["HF_GEO_TRACEBACK"] = "1"  # scripts then raise their errors, which can be told apart


def _exit_with_parent() -> None:
    """Ends this process when a killed sweep would leave it behind, still writing into the sweep's folder."""
    connection.wait([parent_process().sentinel])
    os._exit(1)


def run_script(script: str, arguments: tuple[str, ...], log: str) -> Outcome:
    """Calls `main(arguments)` of a script with all of its output going to the file `log`; returns how it ended."""
    with _redirect_output(log):
        try:
            status = load_main(script)(list(arguments))
        except SystemExit as exit_:
            status = exit_.code
        except Exception as error:  # of whatever kind, it ends the trial and not the sweep
            traceback.print_exc()
            return classify_error(error)
    if not status:
        return FINISHED, None
    lines = Path(log).read_text(encoding="utf-8", errors="replace").split("\n")
    return FAILED, next((line for line in reversed(lines) if line.strip()), f"It ended with status {status}.")


def classify_error(error: Exception) -> Outcome:
    """Returns the outcome of a trial that ended with an error."""
    # The module is heavy; where the script has not imported it, the error cannot be of its class.
    nonfinite = sys.modules.get("hf_geo.training.nonfinite")
    has_diverged = nonfinite is not None and isinstance(error, nonfinite.NonFiniteTrainingError)
    is_sentence = isinstance(error, (ValueError, RuntimeError, OSError))  # errors of other kinds often are a bare word
    message = " ".join(str(error if is_sentence else repr(error)).split()) or type(error).__name__
    return DIVERGED if has_diverged else FAILED, message


@functools.cache
def load_main(script: str) -> Callable[[list[str]], int]:
    """Imports a script, which is in no package, and returns its `main`."""
    spec = importlib.util.spec_from_file_location(f"_script_{Path(script).stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@contextlib.contextmanager
def _redirect_output(path: str) -> Iterator[None]:
    """Sends the standard output and error of the whole process, libraries included, into a file."""
    saved = [os.dup(1), os.dup(2)]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for target in (1, 2):
            os.dup2(file, target)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, source in zip((1, 2), saved, strict=True):
            os.dup2(source, target)
            os.close(source)
        os.close(file)
