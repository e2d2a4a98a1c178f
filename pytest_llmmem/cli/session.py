"""Runs pytest over one of our own modules, and gives what was measured."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pytest_llmmem.core.errors import LlmmemError, SourceError
from pytest_llmmem.core.records import SessionRecord
from pytest_llmmem.workers.process_group import OWN_GROUP, interrupt

_WRONG_USAGE = 4
"""pytest's exit status for options that cannot be used."""


def run_pytest(module: str, *options: str) -> SessionRecord:
    """The record of a session over ``module`` alone, without the settings and plugins of the project around.

    Other installed plugins can cost seconds. ``PYTEST_PLUGINS`` still names some, for strategies of a team's own.

    Raises ``SourceError`` when pytest refuses the options (a model that is none, a strategy that there is not), and
    ``LlmmemError`` when it ended without a report.
    """
    package = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory(prefix="llmmem-") as folder:
        report, settings = Path(folder, "report.json"), Path(folder, "pytest.ini")
        settings.write_text("[pytest]\n", encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "--pyargs", module, f"--rootdir={package}", f"-c{settings}"]
        ours = ["-p", "no:cacheprovider", "-p", "llmmem", f"--llm-report={report}"]
        code, stdout, stderr = _run([*command, *ours, *options])
        if code == _WRONG_USAGE or not report.exists():
            raise _complaint(stderr, stdout)
        return SessionRecord.from_json(json.loads(report.read_text(encoding="utf-8")))


def _run(command: Sequence[str]) -> tuple[int, str, str]:
    """Exit status and outputs. Interrupted, it lets pytest end its workers and remove what they have left on disk."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        **OWN_GROUP,
    )
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        stdout, stderr = process.communicate()
    except KeyboardInterrupt:
        interrupt(process)
        process.communicate()
        sys.stderr.write("llmmem: interrupted\n")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return process.returncode, stdout, stderr


def load_options(loads: Sequence[str], loader: str | None, device: str | None, *, trust_remote_code: bool) -> list[str]:
    """Pytest's options of how, and where, a model is loaded; a GPU that is not there is a failure."""
    return [
        *([f"--llm-loader={loader}"] if loader else []),
        *(f"--llm-load={load}" for load in loads),
        *([f"--llm-device={device}", "--llm-require-gpu"] if device else []),
        *(["--llm-trust-remote-code"] if trust_remote_code else []),
    ]


def _complaint(*outputs: str) -> LlmmemError:
    """Pytest's own error message; its last lines where it printed none."""
    lines = [line.removeprefix("ERROR: ") for output in outputs for line in output.splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith("--llm-")), None)
    if told:
        # the option that pytest knows, under the name that it has here
        told = told.replace("--llm-skip-check", "--llm-skip", 1)
        return SourceError(
            re.sub(r"^--llm-(?:model=(\S+))?", lambda match: f"MODEL {match[1]}" if match[1] else "--", told)
        )
    return LlmmemError("\n".join(lines[-10:]) or "pytest said nothing")
