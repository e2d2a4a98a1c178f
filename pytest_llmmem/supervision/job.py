"""Measure and guard one job in a worker, from its start to its end."""

from typing import Any

from pytest_llmmem.core.measured import Measured
from pytest_llmmem.probes.driver import Driver
from pytest_llmmem.probes.timer import fine_timer
from pytest_llmmem.supervision.listener import Listener
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.supervision.supervisor import Supervision
from pytest_llmmem.workers.worker import Worker


def measure_job(worker: Worker, job: Any, *, last: bool, plan: JobPlan, listener: Listener, driver: Driver) -> Measured:
    """Run one job in a worker, guard it, and judge how it ended."""
    supervision = Supervision.of(worker, plan, listener, driver)
    try:
        with fine_timer():
            supervision.begin(job, last=last)
            while not supervision.is_over:
                supervision.step(supervision.due_in_s)
        return supervision.end(last=last)
    except KeyboardInterrupt:
        worker.kill()
        raise
    finally:
        supervision.close()
