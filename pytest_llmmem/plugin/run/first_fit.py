"""Finds the first load that fits: each strategy is tried in a worker of its own, or in ranks."""

import pytest

from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.record_parts import TrialRecord
from pytest_llmmem.plugin.run.pool import Pool
from pytest_llmmem.plugin.run.ranks import try_in_ranks
from pytest_llmmem.plugin.run.trials import TrialInbox, is_asked_by, loads_to_try, trial_plan
from pytest_llmmem.plugin.state import find_checkpoint
from pytest_llmmem.plugin.worker.messages import ItemKey, Trial
from pytest_llmmem.probes.driver import Driver
from pytest_llmmem.supervision.job import measure_job
from pytest_llmmem.supervision.plan import JobPlan
from pytest_llmmem.workers.worker_source import NoWorkerError


def try_loads(
    pool: Pool, item: pytest.Item, key: ItemKey, plan: JobPlan, gpu_driver: Driver
) -> tuple[TrialRecord, ...]:
    """Try strategies in order, until one fits the budgets of the test's plan. Empty for a test that asks for none."""
    checkpoint = find_checkpoint(item) if is_asked_by(item) else None
    if checkpoint is None:
        return ()
    trials: list[TrialRecord] = []
    plan = trial_plan(plan)
    for chosen in loads_to_try(item.config, checkpoint, ranks=plan.ranks):
        try:
            measured, inbox = _try(pool, Trial(key, chosen), plan, gpu_driver)
        except NoWorkerError:
            return ()  # the test itself will say so
        trials.append(inbox.record(chosen, measured))
        if trials[-1].fits:
            break
    return tuple(trials)


def _try(pool: Pool, trial: Trial, plan: JobPlan, gpu_driver: Driver) -> tuple[Measured, TrialInbox]:
    """Try one load. Raises ``NoWorkerError``."""
    prepare = pool.source.prepare
    if plan.ranks > 1:
        return try_in_ranks(pool, trial, plan, driver=gpu_driver, ready=prepare)
    worker, inbox = pool.take(), TrialInbox()
    prepare()
    measured = measure_job(worker, trial, last=True, plan=plan, listener=inbox, driver=gpu_driver)
    pool.files.sweep()
    return measured, inbox
