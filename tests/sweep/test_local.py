"""This machine as an engine."""

import time

import pytest

from pytest_llmmem.sweep.driver import Missing, run
from pytest_llmmem.sweep.local import Local
from tests.sweep.jobs import job

SEES = "import os, time; print(os.environ.get('CUDA_VISIBLE_DEVICES', 'none')); time.sleep(0.5)"


def seen(*gpus: float) -> list[str]:
    """Which cards jobs with so many see, all at once."""
    engine = Local()
    jobs = [job(str(number), SEES, gpus=each, cpus=0.01, memory_bytes=1) for number, each in enumerate(gpus)]
    ended = {each.job.name: each.result for each in run(jobs, engine)}
    engine.close()
    results = [ended[each.name] for each in jobs]
    return [each.why if isinstance(each, Missing) else each["stdout"].strip() for each in results]


def test_jobs_that_run_at_once_see_different_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,GPU-c")

    two, one = seen(2, 1)

    assert sorted([*two.split(","), one]) == ["GPU-a", "GPU-b", "GPU-c"]


def test_halves_share_a_card_so_that_a_whole_one_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")

    whole, half, other = seen(1, 0.5, 0.5)

    assert half == other != whole


def test_a_card_that_is_not_there_is_said_and_a_job_without_one_sees_what_we_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    none, one = seen(0, 1000)

    assert none == "none"
    assert one.startswith("fits no node: it needs 1 B, 0.01 CPUs, 1000 GPUs, and the largest node, this machine, has")


def test_closing_ends_what_still_runs() -> None:
    engine = Local()
    began = time.monotonic()
    (node,) = engine.nodes()
    engine.start(job(code="import time; time.sleep(600)"), node)

    engine.close()

    (ended,) = engine.wait(0)
    assert ended.job.name == "cells/a"
    assert time.monotonic() - began < 300
