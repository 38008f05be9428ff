"""An end of several processes without an abort."""

import gc

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def end_process_groups() -> None:
    """Ends gloo's threads while the interpreter is whole.

    A thread of gloo that drops a tensor while the interpreter ends aborts the process (pytorch/pytorch#190489). Destroying the
    groups waits for the threads, once nothing else holds the groups: a DDP model does, and a traceback may hold that.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_backend() != "gloo":
        return
    for module in gc.get_objects():
        if issubclass(type(module), DistributedDataParallel):
            vars(module).clear()
    gc.collect()
    dist.destroy_process_group()
