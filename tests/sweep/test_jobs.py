"""One job: its process for real."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pytest_llmmem.sweep.jobs import HERE, REPORT, Job, run_job
from tests.conftest import needs
from tests.sweep.jobs import MB, job

on_linux = needs("forked workers")


def test_a_job_survives_json() -> None:
    asked = job(files={"a": "b"}, variables={"C": "d"}, model="llama", gpus=0.5)

    assert Job.from_json(asked.to_json()) == asked


def test_what_a_job_writes_as_its_report_is_in_the_result() -> None:
    code = "import sys; open(sys.argv[1], 'w').write(open('given').read()); sys.exit(1)"

    result = run_job(job(code=code, files={"given": '{"tests": []}'}, arguments=("-c", code, REPORT)).to_json())

    assert (result["exit_code"], result["report"]) == (1, {"tests": []})
    assert result["seconds"] > 0


def test_without_a_report_the_end_of_the_output_is_kept() -> None:
    result = run_job(job(code="import sys; print('out'); sys.exit('ERROR: why')").to_json())

    assert result["report"] is None
    assert (result["stdout"].strip(), result["stderr"].strip()) == ("out", "ERROR: why")


@needs("signals")
def test_a_job_that_kills_itself_is_a_result() -> None:
    result = run_job(job(code="import os; os.kill(os.getpid(), 9)").to_json())

    assert result["exit_code"] == -signal.SIGKILL


def test_an_interpreter_that_is_not_there_is_a_result() -> None:
    result = run_job(job(python="/nowhere/python").to_json())

    assert result["error"].startswith("/nowhere/python: ")


def test_a_job_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    code = f"""
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
signal.signal(signal.SIGINT, signal.default_int_handler)
time.sleep(600)
"""
    result = run_job(job(code=code, timeout_s=5.0).to_json())

    assert result["timed_out"]
    wait_for(lambda: is_gone(int((tmp_path / "pid").read_text())))


def test_a_job_sees_its_own_settings_and_not_those_of_the_pytest_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-x")
    monkeypatch.setenv("RAY_JOB_ID", "1")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    code = (
        "import os; print(sorted({'PYTEST_ADDOPTS', 'RAY_JOB_ID', 'GITHUB_STEP_SUMMARY', 'MINE'} & os.environ.keys()))"
    )

    result = run_job(job(code=code, variables={"MINE": "1"}).to_json())

    assert result["stdout"].strip() == "['MINE']"


@on_linux
def test_the_memory_of_all_processes_is_measured_when_asked_for() -> None:
    code = f"""
import os, time
held = bytearray({100 * MB})
if os.fork() == 0:
    more = bytearray({100 * MB})
    time.sleep(1)
    os._exit(0)
os.wait()
"""
    result = run_job(job(code=code, measures_tree=True).to_json())

    assert 200 * MB < result["peak_bytes"] < 300 * MB
    assert run_job(job().to_json())["peak_bytes"] is None


@on_linux
def test_a_job_ends_with_the_process_that_runs_it(tmp_path: Path) -> None:
    pid, folder = tmp_path / "pid", tmp_path / "folder"
    inner = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    asked = job(code=inner, folder=HERE)
    outer = f"from pytest_llmmem.sweep.jobs import run_job; run_job({asked.to_json()!r})"
    folder.mkdir()
    agent = subprocess.Popen([sys.executable, "-c", outer], env=os.environ | {"TMPDIR": str(folder)})
    wait_for(lambda: pid.exists() and pid.read_text())

    agent.kill()
    agent.wait()

    wait_for(lambda: is_gone(int(pid.read_text())))


def wait_for(there: object) -> None:
    end = time.monotonic() + 60
    while not there():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
