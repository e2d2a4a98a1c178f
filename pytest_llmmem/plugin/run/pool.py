"""The source of the workers in this session: forked if that is safe here, else spawned, with the reason."""

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import pytest

from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.core.launch import rank_of
from pytest_llmmem.plugin.settings import Settings
from pytest_llmmem.plugin.worker.imports import import_ahead
from pytest_llmmem.plugin.worker.main import WorkerMain, item_keys
from pytest_llmmem.plugin.worker.torchrun import keep_groups_apart
from pytest_llmmem.workers.channel import Channel
from pytest_llmmem.workers.fork_safety import why_not_fork
from pytest_llmmem.workers.session_files import SessionFiles
from pytest_llmmem.workers.session_folders import SessionFolder
from pytest_llmmem.workers.spawned import Launcher, Spawner, open_startup_output
from pytest_llmmem.workers.worker import Worker
from pytest_llmmem.workers.worker_source import NoWorkerError, WorkerSource

_ENDING: Final = (signal.SIGTERM, *(number for number in signal.Signals if number.name == "SIGBREAK"))
"""``SIGBREAK`` is Windows' Ctrl-Break."""
_TAIL_BYTES: Final = 2000


@dataclass(slots=True)
class Pool:
    """The session's workers."""

    kind: Literal["fork", "spawn"]
    reason: str
    """Why it is not the kind that ``auto`` prefers; empty when it is."""
    source: WorkerSource
    folder: SessionFolder
    files: SessionFiles
    startup_output: int
    """The file that spawned workers write to until they are ready."""
    _handled: tuple[signal.Signals, ...] = ()
    """Signals that interrupt the session and would have ended it at once."""

    def take(self) -> Worker:
        """A worker that is ready. Raises ``NoWorkerError``, with what pytest printed as it was started."""
        try:
            return self.source.take()
        except NoWorkerError as error:
            size = os.fstat(self.startup_output).st_size
            os.lseek(self.startup_output, max(0, size - _TAIL_BYTES), os.SEEK_SET)
            output = os.read(self.startup_output, _TAIL_BYTES).decode(errors="replace")
            msg = f"{error}:\n{output}" if output else str(error)
            raise NoWorkerError(msg) from None

    def take_notes(self) -> tuple[str, ...]:
        """Return the notes since the last call, and clear them."""
        notes = tuple(self.source.notes)
        self.source.notes.clear()
        return notes

    def close(self) -> None:
        """End every process and remove every file of ours."""
        for number in self._handled:
            signal.signal(number, signal.SIG_DFL)
        self.source.close()
        self.files.close()
        os.close(self.startup_output)
        self.folder.remove()


def open_pool(
    config: pytest.Config,
    settings: Settings,
    items: list[pytest.Item],
    *,
    jobs: int,
    modules: Iterable[str],
    model_types: Iterable[str],
) -> Pool:
    """Start what makes workers. They have ``modules``, and the code of ``model_types``, imported ahead.

    Raises ``SettingError`` when ``fork`` is asked for and not safe, or nothing can be started.
    """
    reason = "" if settings.worker == "spawn" else why_not_fork(since="during collection")
    if reason and settings.worker == "fork":
        msg = f"--llm-worker=fork: {reason}: use 'auto' or 'spawn'"
        raise SettingError(msg)
    ahead = tuple(modules), tuple(model_types)
    kind: Literal["fork", "spawn"] = "spawn" if reason or settings.worker == "spawn" else "fork"
    with contextlib.ExitStack() as undo:
        try:
            folder = SessionFolder.create()
            undo.callback(folder.remove)
            files = SessionFiles.create(folder.path)
            startup_output = open_startup_output()
            launcher = Launcher(
                _command(config),
                config.invocation_params.dir,
                files,
                startup_output,
                *ahead,
            )
            if sys.platform == "linux":
                inside = WorkerMain(config, item_keys(items), settings.malloc, files)
                fork = partial(_run_fork_server, inside, ahead, jobs)
                spawn = partial(serve_spawns, launcher)
                run, worker = (fork, ForkedWorker) if kind == "fork" else (spawn, ServedWorker)
                source: WorkerSource = Server.start(run, folder.path, files, worker)
            else:
                source = Spawner(partial(start_worker, launcher))
        except OSError as error:
            raise SettingError(_why_not_started(error)) from None
        undo.pop_all()
    return Pool(kind, reason, source, folder, files, startup_output, _handle_endings())


def _handle_endings() -> tuple[signal.Signals, ...]:
    """Let the signals interrupt the session that would end it at once; returns them."""
    if threading.current_thread() is not threading.main_thread():
        return ()
    # what they end, as a CI does with a cancelled job, would leave processes and offloaded weights behind
    handled = tuple(number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL)
    for number in handled:
        signal.signal(number, signal.default_int_handler)
    return handled


if sys.platform == "linux":
    from pytest_llmmem.workers.fork_server import serve_forks
    from pytest_llmmem.workers.served import Server
    from pytest_llmmem.workers.served_workers import ForkedWorker, ServedWorker
    from pytest_llmmem.workers.spawned import serve_spawns

    def _run_fork_server(
        inside: WorkerMain,
        ahead: tuple[tuple[str, ...], tuple[str, ...]],
        jobs: int,
        control: Channel,
        preloads: bool,
    ) -> None:
        def preload() -> None:
            # some modelling code asks for a GPU when it is imported
            if preloads:
                import_ahead(*ahead)
                if rank_of(os.environ) is not None:
                    keep_groups_apart(0)
            inside.settle()

        serve_forks(control, inside, preload, jobs=jobs)


elif sys.platform == "win32":
    from pytest_llmmem.workers.windows_spawned import start_worker
else:
    from pytest_llmmem.workers.macos_spawned import start_worker


def _why_not_started(error: OSError) -> str:
    hints = {
        errno.EMFILE: "allow more open files, as `ulimit -n 256` does",
        errno.ENOSPC: "free space there, or set TMPDIR to another folder",
        errno.EAGAIN: "allow more processes, or end some",
        errno.ENOMEM: "free memory",
    }
    hint = hints.get(error.errno or 0, "or switch isolation off with --llm-isolate=none")
    return f"no worker can be started: {error}: {hint}"


def _command(config: pytest.Config) -> list[str]:
    """The same pytest run, for an interpreter of its own."""
    arguments = [str(argument) for argument in config.invocation_params.args]
    if hasattr(config, "workerinput"):
        arguments = config.workerinput["mainargv"][1:]
    if config.pluginmanager.has_plugin("dsession") or hasattr(config, "workerinput"):
        arguments.append("-n0")
    return [sys.executable, "-m", "pytest", *arguments]
