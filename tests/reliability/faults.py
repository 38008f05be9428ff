"""Disks that fail for a while, for trainings in this process."""

import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

from transformers import TrainerCallback


class Between(TrainerCallback):
    """Breaks the disk before the checkpoint of one update is saved and mends it at the next update."""

    def __init__(self, step: int, break_it: Callable[[], None], mend_it: Callable[[], None]) -> None:
        self.step, self.break_it, self.mend_it = step, break_it, mend_it
        self.best: int | None = None

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            self.break_it()

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            self.mend_it()
            self.best = state.best_global_step


class Disk:
    """A small tmpfs."""

    def __init__(self, folder: Path, size: str) -> None:
        self.folder = folder
        folder.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
        )
        if mounted.returncode:
            raise PermissionError(mounted.stderr.strip())

    def fill(self, but: int = 0) -> None:
        """Leaves no more than `but` bytes."""
        with open(self.folder / "ballast", "wb", buffering=0) as file:
            free = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_bsize
            file.write(bytes(max(0, free - but)))

    def empty(self) -> None:
        (self.folder / "ballast").unlink()

    def remount(self, mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.folder)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


def limit_files(size: int) -> None:
    """The largest file that this process may write, in bytes; -1 for any."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
