"""The interpreter that runs ``meta_layout``: one for all configs of a session, because its imports take seconds."""

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Final

_PATIENCE_S: Final = 300
"""Time for the imports and one model: 40,000 modules take 8 s of CPU time."""

_interpreters: Final[dict[int, subprocess.Popen[str]]] = {}
"""The interpreter of each process: a forked process must not read the answers to its parent."""


def describe(folder: Path) -> dict[str, Any]:
    """The class and the tensors of the model that the ``config.json`` in the folder describes: see ``meta_layout.describe``.

    The first call starts the interpreter. Raises ``ValueError`` with the reason that there is no model.
    """
    pid = os.getpid()
    if pid not in _interpreters:
        _interpreters[pid] = _start()
        atexit.register(end)
    late = threading.Event()
    line = _ask(_interpreters[pid], folder, late)
    if not line:
        end()
        raise ValueError(f"it takes longer than {_PATIENCE_S} s" if late.is_set() else "its interpreter has died")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer


def end() -> None:
    """End the interpreter, if there is one. A later call of ``describe`` starts another."""
    if process := _interpreters.pop(os.getpid(), None):
        process.kill()
        process.communicate()


def _start() -> subprocess.Popen[str]:
    program = Path(__file__).with_name("meta_layout.py")
    return subprocess.Popen(
        # -P: the program's folder must not be searched for modules, or its files would shadow the standard library's.
        [sys.executable, "-P", str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )


def _ask(process: subprocess.Popen[str], folder: Path, late: threading.Event) -> str:
    """The line that it answers; empty when it has died. ``late`` is set when it was ended for taking too long."""

    def give_up() -> None:
        late.set()
        process.kill()

    patience = threading.Timer(_PATIENCE_S, give_up)
    patience.start()
    try:
        _pipe(process.stdin).write(f"{folder}\n")
        _pipe(process.stdin).flush()
        return _pipe(process.stdout).readline()
    except BrokenPipeError:
        return ""
    finally:
        patience.cancel()
        patience.join()  # workers are only forked from a process of one thread


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "the process was started with pipes"
    return stream
