"""A worker that is one of several ranks: its place among them, files of its own, and the process group."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Generator
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


@contextlib.contextmanager
def process_group(rank: Rank | None) -> Generator[Any]:
    """The default process group of the ranks, made unless there is one already; destroyed by whoever made it."""
    import torch
    from torch import distributed

    if distributed.is_initialized():
        yield distributed.group.WORLD
        return
    where: dict[str, Any] = {}
    if rank is not None:
        where = {"init_method": rank.store.as_uri(), "rank": rank.number, "world_size": rank.count}
    # asks the driver, not the runtime
    cards = torch.cuda.device_count()
    has_cards = rank is not None and cards >= rank.count and distributed.is_nccl_available()
    if rank is not None and has_cards:
        torch.cuda.set_device(rank.number)
    distributed.init_process_group("nccl" if has_cards else "gloo", **where)
    try:
        yield distributed.group.WORLD
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
