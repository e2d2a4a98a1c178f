"""Where workers come from in this session: forked if that is safe here, else spawned, and why."""

import contextlib
import importlib
import os
import select
import signal
import sys
import threading
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import pytest

from pytest_llmmem import probes
from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.models.following import find_readers
from pytest_llmmem.plugin.inside import Inside, item_keys
from pytest_llmmem.plugin.settings import Settings
from pytest_llmmem.workers.folders import SessionFolder
from pytest_llmmem.workers.handle import Worker
from pytest_llmmem.workers.spawned import Spawner
from pytest_llmmem.workers.traces import Traces

_PROBE_S: Final = 2.0
_MODELLING: Final = "transformers.models.{0}.modeling_{0}"


class Source(Protocol):
    """Makes workers."""

    def take(self) -> Worker: ...
    def prepare(self) -> None: ...
    def drain(self) -> None: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Pool:
    """The session's workers."""

    kind: str
    """``"fork"`` or ``"spawn"``."""
    reason: str
    """Why it is not the kind that ``auto`` prefers; empty when it is."""
    source: Source
    folder: SessionFolder
    traces: Traces
    _ends_on_sigterm: bool = False

    def __post_init__(self) -> None:
        # what SIGTERM ends, as a CI does with a cancelled job, would leave processes and offloaded weights behind
        in_main = threading.current_thread() is threading.main_thread()
        self._ends_on_sigterm = in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if self._ends_on_sigterm:
            signal.signal(signal.SIGTERM, signal.default_int_handler)

    def close(self) -> None:
        """End every process and remove every file of ours."""
        if self._ends_on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.source.close()
        self.traces.close()
        self.folder.remove()


def open_pool(
    config: pytest.Config, settings: Settings, items: list[pytest.Item], *, jobs: int, model_types: Iterable[str]
) -> Pool:
    """Start what makes workers. Raises ``SettingError`` when ``fork`` was asked for and is not safe."""
    reason = "" if settings.worker == "spawn" else why_not_fork()
    if reason and settings.worker == "fork":
        msg = f"--llm-worker=fork: {reason}: use 'auto' or 'spawn'"
        raise SettingError(msg)
    folder = SessionFolder()
    traces = Traces.create(folder.path)
    if sys.platform == "linux" and not reason and settings.worker != "spawn":
        from pytest_llmmem.workers.forked import Forker

        inside = Inside(config, item_keys(items), settings.malloc, traces, os.getpid())
        architectures = tuple(model_types)

        def import_and_settle() -> None:
            _import_ahead(architectures)
            inside.settle()

        # some modelling code asks for a GPU when it is imported
        forker = Forker(inside, import_and_settle, inside.settle, traces=traces, jobs=jobs)
        return Pool("fork", "", forker, folder, traces)
    command = _command(config)
    spawner = Spawner(command, cwd=config.invocation_params.dir, traces=traces)
    return Pool("spawn", reason, spawner, folder, traces)


def why_not_fork() -> str:
    """Why a fork of this process would not work; empty when nothing speaks against it."""
    if sys.platform != "linux":
        return f"workers are spawned on {sys.platform}"
    if (device := probes.gpu_files_open()) is not None:
        return f"{device} was opened during collection, and a GPU context does not survive a fork"
    if "torch" in sys.modules and not _torch_works_after_fork():
        return "torch has computed during collection, and its threads do not survive a fork"
    return ""


def _torch_works_after_fork() -> bool:
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


def _import_ahead(model_types: tuple[str, ...]) -> None:
    """Import, in the zygote, what each worker that loads a model would otherwise import anew: seconds each."""
    if not model_types:
        return
    for name in ("torch", "transformers", "accelerate", *map(_MODELLING.format, model_types)):
        # what is missing or broken raises in the test that needs it
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    with contextlib.suppress(Exception):
        import transformers

        _ = transformers.AutoModel, transformers.PreTrainedModel
    find_readers()


def _command(config: pytest.Config) -> list[str]:
    """The same pytest run, for an interpreter of its own."""
    arguments = [str(argument) for argument in config.invocation_params.args]
    if hasattr(config, "workerinput"):
        arguments = config.workerinput["mainargv"][1:]
    if config.pluginmanager.has_plugin("dsession") or hasattr(config, "workerinput"):
        arguments.append("-n0")
    return [sys.executable, "-m", "pytest", *arguments]
