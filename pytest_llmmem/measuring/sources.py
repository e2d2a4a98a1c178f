"""The source of the worker of ``measure``: forked from the caller, or a fresh interpreter."""

import contextlib
import os
import pickle
import sys
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from pytest_llmmem import probes
from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.measuring.call import Calls, run_calls, write_output_to
from pytest_llmmem.workers import child
from pytest_llmmem.workers.channel import Channel
from pytest_llmmem.workers.fork_safety import torch_works_after_fork, why_never_fork
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.session_folders import SessionFolder
from pytest_llmmem.workers.spawned import Launcher, Spawner
from pytest_llmmem.workers.worker import Worker
from pytest_llmmem.workers.worker_source import NoWorkerError, WorkerSource

WorkerKind = Literal["auto", "fork", "spawn"]

_COMMAND: Final = (sys.executable, "-m", "pytest_llmmem.measuring.spawned")
_ONE_THREAD: Final = (
    "torch computed with one thread there: it had computed before the fork, and its other threads do not survive it"
)
_MOST_OUTPUT: Final = 4000
script: Final[list[str]] = []
"""The script that this process imports, to find the function that it is to run."""
_computed: Final[set[int]] = set()
"""Processes, of which only this one is of interest, in which torch is known to have computed."""


@dataclass(frozen=True, slots=True)
class ReadyWorker:
    """A worker, and the job that is sent to it."""

    worker: Worker
    job: "SpawnedCall | None"
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnedCall:
    """The function for a fresh interpreter."""

    pickled: bytes
    path: tuple[str, ...]
    """``sys.path``, so that the same modules are found."""
    main: str | None
    """The script that is to be imported before, as it defines something of ``pickled``; else ``None``."""


@contextlib.contextmanager
def open_worker(calls: Calls, kind: WorkerKind, output: int) -> Generator[ReadyWorker]:
    """A worker that is ready for the function, and writes to ``output``.

    Raises ``LlmmemError`` where none can be had, or the function cannot reach it.
    """
    if script:
        msg = f"it was called while its worker imported {script[0]}: call it below if __name__ == '__main__':"
        raise LlmmemError(msg)
    reason = why_never_fork(since="before")
    if kind == "fork" and reason:
        msg = f"worker='fork': {reason}: use 'auto' or 'spawn'"
        raise LlmmemError(msg)
    job = _spawned_call(calls, reason) if kind == "spawn" or reason else None
    with contextlib.ExitStack() as opened:
        try:
            folder = SessionFolder.create()
            opened.callback(folder.remove)
            files = SessionFiles.create(folder.path)
            opened.callback(files.close)
            launcher = Launcher(_COMMAND, Path.cwd(), files, output)
            source, notes = _source(calls, launcher, forks=job is None)
            opened.callback(source.close)
            opened.callback(source.drain)
            worker = source.take()
        except (OSError, NoWorkerError) as error:
            os.lseek(output, 0, os.SEEK_SET)
            written = os.read(output, _MOST_OUTPUT).decode(errors="replace").strip()
            msg = f"no worker can be started: {error}" + (f":\n{written}" if written else "")
            raise LlmmemError(msg) from None
        yield ReadyWorker(worker, job, notes)


def _torch_needs_one_thread() -> bool:
    """Whether torch has computed here: with several threads it would then wait for ever in a forked process."""
    if "torch" not in sys.modules:
        return False
    if os.getpid() not in _computed and not torch_works_after_fork():
        _computed.add(os.getpid())
    return os.getpid() in _computed


if sys.platform == "linux":
    from pytest_llmmem.workers.fork_server import serve_forks
    from pytest_llmmem.workers.served import Server
    from pytest_llmmem.workers.served_workers import ForkedWorker, ServedWorker
    from pytest_llmmem.workers.spawned import serve_spawns

    def _source(calls: Calls, launcher: Launcher, *, forks: bool) -> tuple[WorkerSource, tuple[str, ...]]:
        files = launcher.files
        if not forks:
            return Server.start(partial(serve_spawns, launcher), files.folder, files, ServedWorker), ()
        on_one_thread = _torch_needs_one_thread()
        body = _Forked(calls, files, launcher.startup_output, on_one_thread=on_one_thread)
        notes = (_ONE_THREAD,) if on_one_thread else ()
        return Server.start(partial(_run_fork_server, body), files.folder, files, ForkedWorker), notes

    def _run_fork_server(body: "_Forked", control: Channel, _preloads: bool) -> None:
        serve_forks(control, body, body.settle, jobs=1)

else:
    if sys.platform == "win32":
        from pytest_llmmem.workers.windows_spawned import start_worker
    else:
        from pytest_llmmem.workers.macos_spawned import start_worker

    def _source(
        calls: Calls,  # noqa: ARG001 -- as on Linux
        launcher: Launcher,
        *,
        forks: bool,
    ) -> tuple[WorkerSource, tuple[str, ...]]:
        assert not forks, "open_worker has asked whether it is safe"
        return Spawner(partial(start_worker, launcher)), ()


class _Forked:
    """The body of a forked worker."""

    def __init__(self, calls: Calls, files: SessionFiles, output: int, *, on_one_thread: bool) -> None:
        self._calls, self._files, self._output, self._on_one_thread = calls, files, output, on_one_thread

    def settle(self) -> None:
        """In the process that the worker is forked from."""
        self._mappings = probes.mappings()

    def __call__(self, channel: Channel) -> None:
        write_output_to(self._output)
        if self._on_one_thread:
            sys.modules["torch"].set_num_threads(1)
        child.serve(
            channel, self._files.stacks, self._run, malloc="steady", mappings=self._mappings, counts_copies=True
        )

    def _run(self, job: None, connection: child.ParentConnection) -> None:
        run_calls(self._calls, connection)


def _spawned_call(calls: Calls, reason: str) -> SpawnedCall:
    fresh = f"the worker is a fresh interpreter{f' ({reason})' if reason else ''}, and"
    try:
        pickled = pickle.dumps(calls)
    except Exception as error:  # noqa: BLE001 -- whatever a ``__reduce__`` raises
        msg = (
            f"{fresh} the function or an argument cannot be sent there: {error}: "
            "use a function that is defined at the top of a module, and arguments that can be pickled"
        )
        raise LlmmemError(msg) from None
    main = sys.modules["__main__"]
    path = getattr(main, "__file__", None) if b"__main__" in pickled else None
    if b"__main__" in pickled and path is None:
        msg = f"{fresh} cannot import what is defined in this session: move it to a module"
        raise LlmmemError(msg)
    if path is not None:
        # a value of a class of the script comes back under the name that the script has there
        sys.modules.setdefault("__mp_main__", main)
    return SpawnedCall(pickled=pickled, path=tuple(sys.path), main=path and os.path.abspath(path))
