"""Processes that run trials one after the other, and what they do when a trial ends badly."""

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

import torch

from hf_geo.training.nonfinite import NonFiniteTraining

from .records import DIVERGED, FAILED, FINISHED

Task = TypeVar("Task")
Call = tuple[str, tuple[str, ...], str]  # of `run_script`
Outcome = tuple[str, str | None]  # how a trial ended, and why if it failed or diverged


def run_all(calls: Iterable[tuple[Task, Call]], jobs: int) -> Iterator[tuple[Task, Outcome]]:
    """Runs scripts in up to `jobs` processes at once; yields each task as it ends, with its outcome.

    The next call is taken only when a process is free for it and everything that has ended was yielded. A process
    serves many calls, so that libraries are imported once; where one dies, its call has failed and a new one takes over.

    Args:
        calls: What names a call to the caller, with the arguments of `run_script`.
        jobs: Processes at once. Each has one GPU if there are any, and its share of the cores.
    """
    calls = iter(calls)
    pools = [_new_pool(slot, jobs) for slot in range(jobs)]
    running: dict[Future, tuple[int, Task]] = {}
    try:
        while True:
            busy = {slot for slot, _ in running.values()}
            for slot in set(range(jobs)) - busy:
                if (item := next(calls, None)) is not None:
                    task, call = item
                    running[pools[slot].submit(run_script, *call)] = (slot, task)
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                slot, task = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    outcome = FAILED, "The process that ran it died (killed, or out of memory)."
                    pools[slot] = _new_pool(slot, jobs)
                yield task, outcome
    finally:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)


def _new_pool(slot: int, jobs: int) -> ProcessPoolExecutor:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    gpu = gpus[slot % len(gpus)] if gpus else None
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin, initargs=(gpu, jobs))


def _begin(gpu: str | None, jobs: int) -> None:
    """Settles a new process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    elif jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    os.environ["HF_GEO_TRACEBACK"] = "1"  # errors come as they are, to be told apart


def _end_with_parent() -> None:
    """A killed sweep leaves no process behind that writes into its folder."""
    connection.wait([parent_process().sentinel])
    os._exit(1)


def run_script(script: str, words: tuple[str, ...], log: str) -> Outcome:
    """Calls `main(words)` of a script, with all it prints going into `log`; returns how it ended."""
    with _printing_into(log):
        try:
            status = _main_of(script)(list(words))
        except SystemExit as stop:
            status = stop.code
        except Exception as error:  # whatever it is, it is the trial's and not the sweep's
            traceback.print_exc()
            state = DIVERGED if isinstance(error, NonFiniteTraining) else FAILED
            told = isinstance(error, (ValueError, RuntimeError, OSError))  # others are no sentences
            return state, " ".join(str(error if told else repr(error)).split()) or type(error).__name__
    if not status:
        return FINISHED, None
    lines = Path(log).read_text(encoding="utf-8", errors="replace").split("\n")
    return FAILED, next((line for line in reversed(lines) if line.strip()), f"It ended with status {status}.")


@functools.cache
def _main_of(script: str) -> Callable[[list[str]], int]:
    """`main` of a script, which is no package's."""
    spec = importlib.util.spec_from_file_location(f"_script_{Path(script).stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@contextlib.contextmanager
def _printing_into(path: str) -> Iterator[None]:
    """Sends the process's standard output and error into a file, those of libraries too."""
    kept = [os.dup(1), os.dup(2)]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for target in (1, 2):
            os.dup2(file, target)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, source in zip((1, 2), kept, strict=True):
            os.dup2(source, target)
            os.close(source)
        os.close(file)
