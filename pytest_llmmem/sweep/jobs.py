"""One command in a process of its own. ``run_job`` runs on the node; what goes in and comes out is plain JSON.

Its process ends with the process that runs it: a node's agent that is killed leaves nothing behind.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from pytest_llmmem import probes
from pytest_llmmem.workers.process_group import OWN_GROUP, ProcessGroup, interrupt
from pytest_llmmem.workers.session_folders import SessionFolder

HERE: Final = "{job}"
"""Stands for the job's own temporary folder, in its command and in its working directory."""
REPORT: Final = f"{HERE}/report.json"

_GRACE_S: Final = 20.0
"""Time for pytest to end its workers and remove their files, after SIGINT."""
_NOT_INHERITED: Final = ("PYTEST_ADDOPTS", "GITHUB_STEP_SUMMARY")
_LOOK_EVERY_S: Final = 0.1
_POLL_S: Final = 0.02
_TAIL_BYTES: Final = 100_000
_END_WITH_PARENT: Final = """
import os, sys
from pytest_llmmem.workers.children import end_with
end_with(int(sys.argv[1]))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Asked for by the process itself before it becomes pytest: code between fork and exec is not safe in a process with threads, as
a node's agent is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A command, and what it reserves on its node."""

    name: str
    """Unique; its result's file is named after it."""
    python: str
    arguments: tuple[str, ...]
    """Arguments of the interpreter."""
    folder: str = HERE
    """Working directory."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Written to its own folder first."""
    variables: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 600.0
    memory_bytes: int
    cpus: float = 1.0
    gpus: float = 0.0
    model: str | None = None
    """A node that has run a job of this model is preferred."""
    measures_tree: bool = False
    """Sample the memory of all of its processes, for the base of an environment."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "arguments": tuple(data["arguments"])})

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "files": dict(self.files), "variables": dict(self.variables)}


def run_job(data: Mapping[str, Any], *, is_stopped: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Run a job of ``Job.to_json`` to its end, or until it is stopped; returns its result.

    ``exit_code`` is negative for a signal; ``report`` is the JSON report if there is one, else ``stdout`` and ``stderr``
    hold the end of the output; ``error`` is the reason why there was no process.
    """
    job = Job.from_json(data)
    began = time.time()
    result: dict[str, Any] = {"exit_code": None, "error": None, "timed_out": False, "peak_bytes": None}
    folder = SessionFolder.create()
    try:
        result |= _run(job, folder.path, is_stopped)
        result |= _written(folder.path)
    finally:
        folder.remove()
    return {**result, "host": socket.gethostname(), "began": began, "seconds": time.time() - began}


def _run(job: Job, folder: Path, is_stopped: Callable[[], bool]) -> dict[str, Any]:
    for name, text in job.files.items():
        folder.joinpath(name).write_text(text, encoding="utf-8")
    command = [job.python, *(argument.replace(HERE, str(folder)) for argument in job.arguments)]
    if sys.platform == "linux":
        command[1:1] = ["-c", _END_WITH_PARENT, str(os.getpid())]
    try:
        with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                command,
                cwd=job.folder.replace(HERE, str(folder)),
                env=_environment(job),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                **OWN_GROUP,
            )
    except OSError as error:
        return {"error": f"{error.filename or job.python}: {error.strerror}"}
    return _supervise(process, job, is_stopped)


def _supervise(process: "subprocess.Popen[bytes]", job: Job, is_stopped: Callable[[], bool]) -> dict[str, Any]:
    """Wait for the end, or bring it about; measure meanwhile."""
    peak_bytes: int | None = None
    end = time.monotonic() + job.timeout_s
    timed_out = False
    group = ProcessGroup(process)
    try:
        while not _has_ended(process, _LOOK_EVERY_S) and not is_stopped() and not timed_out:
            if job.measures_tree:
                tree = probes.shared_once([process.pid, *probes.descendants(process.pid)])
                peak_bytes = max(peak_bytes or 0, tree.resident_bytes)
            timed_out = time.monotonic() > end
    finally:
        _end(process, group)
    return {"exit_code": process.returncode, "timed_out": timed_out, "peak_bytes": peak_bytes}


def _end(process: "subprocess.Popen[bytes]", group: ProcessGroup) -> None:
    """End the job as Ctrl-C does, so that pytest writes its report; then kill the rest of its process group."""
    if not _has_ended(process, 0):
        interrupt(process)
        _has_ended(process, _GRACE_S)
    group.kill()
    process.wait()


def _has_ended(process: "subprocess.Popen[bytes]", timeout_s: float) -> bool:
    """Wait for the end at most so long; on Linux the process stays a zombie."""
    if sys.platform != "linux":
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
        return process.poll() is not None
    end = time.monotonic() + timeout_s
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() >= end:
            return False
        time.sleep(min(_POLL_S, timeout_s))
    return True


def _environment(job: Job) -> dict[str, str]:
    """Ours, without what is meant for the pytest, the Ray or the step of GitHub's around us."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("RAY_") and name not in _NOT_INHERITED
    }
    threads = str(max(1, round(job.cpus)))
    return {"OMP_NUM_THREADS": threads, **inherited, "PYTHONDONTWRITEBYTECODE": "1", **job.variables}


def _written(folder: Path) -> dict[str, Any]:
    try:
        return {"report": json.loads((folder / "report.json").read_text(encoding="utf-8")), "stdout": "", "stderr": ""}
    except (OSError, ValueError):
        return {"report": None, **{name: _tail(folder / name) for name in ("stdout", "stderr")}}


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    except OSError:
        return ""
