"""Whether this process can be forked, and what runs in the child works there."""

import contextlib
import os
import select
import signal
import sys
import warnings
from typing import Final

from pytest_llmmem import probes

_PROBE_S: Final = 2.0


def why_not_fork(*, since: str) -> str:
    """Why a fork of this process would not work; empty when nothing speaks against it. ``since``: ``"during collection"``."""
    if reason := why_never_fork(since=since):
        return reason
    if "torch" in sys.modules and not torch_works_after_fork():
        return f"torch has computed {since}, and its threads do not survive a fork; OMP_NUM_THREADS=1 has none"
    return ""


def why_never_fork(*, since: str) -> str:
    """The same, of what no setting of torch in the child can mend."""
    if sys.platform != "linux":
        return f"workers are spawned on {sys.platform}"
    if (device := probes.gpu_files_open()) is not None:
        return f"{device} was opened {since}, and a GPU context does not survive a fork"
    return ""


def torch_works_after_fork() -> bool:
    """Try a parallel operation in a forked child: after one in the parent it would wait forever for lost threads."""
    if sys.platform != "linux":
        return False
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the trial is there to find out
        pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            import torch

            torch.ones(200_000).exp_()
            os.write(sender, b"1")
        os._exit(0)
    os.close(sender)
    readable, _, _ = select.select([receiver], [], [], _PROBE_S)
    works = bool(readable) and os.read(receiver, 1) == b"1"
    os.close(receiver)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return works
