"""A worker that is one of several ranks: its place among them, files of its own, and the process group."""

import contextlib
import os
import sys
import tempfile
from typing import Any

from pytest_llmmem.core.launch import Rank
from pytest_llmmem.workers.session_files import SessionFiles


def enter_rank(rank: Rank, files: SessionFiles) -> SessionFiles:
    """Become this rank. Returns files of its own, in place of those that the session's other workers write to."""
    os.environ |= rank.environment
    if "OMP_NUM_THREADS" not in os.environ:
        # as torchrun does: ranks that each compute on all processors wait for each other
        os.environ["OMP_NUM_THREADS"] = "1"
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(1)
    own = SessionFiles.open(rank.files)
    # faulthandler goes on with the number that it was given
    os.dup2(own.stacks, files.stacks, inheritable=False)
    return own


def own_output() -> None:
    """Have standard output and error go to files of this process's own, where they go to files that all ranks have inherited.

    pytest's capture has further descriptors of each file, by which it reads and empties it.
    """
    if sys.platform == "win32":
        return
    for stream in (1, 2):
        shared = os.fstat(stream)
        with tempfile.TemporaryFile() as own:
            for name in os.listdir("/dev/fd"):
                with contextlib.suppress(OSError):  # the folder's own descriptor is closed by now
                    if os.path.samestat(os.fstat(int(name)), shared):
                        os.dup2(own.fileno(), int(name), inheritable=int(name) == stream)


def join_process_group(rank: Rank | None) -> Any:
    """The default process group of the ranks, made unless there is one. It ends with this process, as its test does."""
    import torch
    from torch import distributed

    if distributed.is_initialized():
        return distributed.group.WORLD
    if rank is None:  # the session's own, by the environment that torchrun has set
        distributed.init_process_group()
        return distributed.group.WORLD
    # asks the driver, not the runtime
    has_cards = torch.cuda.device_count() >= rank.count and distributed.is_nccl_available()
    if has_cards:
        torch.cuda.set_device(rank.number)
    backend = "nccl" if has_cards else "gloo"
    distributed.init_process_group(backend, init_method=rank.store.as_uri(), rank=rank.number, world_size=rank.count)
    return distributed.group.WORLD
