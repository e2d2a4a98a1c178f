"""The plan of a test, made from its markers and the session's settings: whether and with which tests it is isolated."""

import dataclasses
import inspect
import unittest
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest

from pytest_llmmem import probes
from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.decide import default_reserve_bytes
from pytest_llmmem.core.errors import DeviceError, LlmmemError, MarkerError, SettingError
from pytest_llmmem.core.limits import Limit
from pytest_llmmem.core.printable import some_of
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.core.terms import Terms, terms_of
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.plugin.collect.loads import FITTING, Load, load_of, strategy_of
from pytest_llmmem.plugin.collect.models import source_of
from pytest_llmmem.plugin.collect.ranks import check_ranks_fit, ranks_of, split_budgets
from pytest_llmmem.plugin.collect.steps import check_steps, with_step_terms
from pytest_llmmem.plugin.collect.vram_budgets import check_device, vram_budgets
from pytest_llmmem.plugin.markers import InWorker, LlmBaseline, LlmLoad, MaxDisk, MaxGrowth, MaxRam
from pytest_llmmem.plugin.settings import Settings
from pytest_llmmem.supervision.plan import JobPlan

FindCheckpoint = Callable[[pytest.Item], Checkpoint | None]


@dataclass(frozen=True, slots=True)
class IsolatedTest:
    """A test that runs in a worker, or the reason why it does not."""

    plan: JobPlan | None
    complaint: str
    """Why there is no plan; fails the test."""
    group: str | None
    """Tests of the same group, one after the other, share a worker."""
    growth: Budget | None = None
    """The budget of ``max_growth``: memory that each call of the test may leave."""
    why_skipped: str = ""
    """Requirement of the test that this machine does not meet; there is no plan then."""


def plan_item(item: pytest.Item, settings: Settings, find_checkpoint: FindCheckpoint) -> IsolatedTest:
    """Plan an isolated test before it runs; a marker that cannot be used becomes its complaint."""
    try:
        in_worker = InWorker.of(item)
        ranks = ranks_of(item, in_worker, settings)
        terms = dataclasses.replace(_terms(item, find_checkpoint), ranks=ranks)
        budgets = (
            *_ram_budget(item, settings, terms),
            *_disk_budget(item, settings, terms),
            *vram_budgets(item, settings, terms),
        )
        growth = _growth_budget(item, terms)
        LlmBaseline.of(item)
        check_steps(item)
        _check_load(item, budgets)
        together, of_rank = split_budgets(item, budgets) if ranks > 1 else (budgets, ())
        if ranks > 1:
            check_ranks_fit(ranks, together, of_rank, total_bytes=terms.host_bytes)
        check_device(item, settings)
    except MarkerError as error:
        return IsolatedTest(None, str(error), None)
    except DeviceError as error:
        return IsolatedTest(None, str(error), None, why_skipped="" if settings.require_gpu else str(error))
    if ranks > 1 and settings.isolate == "none":
        why = f"it needs {ranks} workers, one for each rank, and tests run in this process here (--llm-isolate=none, --pdb)"
        return IsolatedTest(None, why, None, why_skipped=why)
    timeout_s = in_worker.timeout_s if in_worker and in_worker.timeout_s else settings.timeout_s
    plan = JobPlan(
        budgets=together,
        timeout_s=timeout_s,
        reserve_bytes=_reserve_bytes(settings),
        terms=terms,
        shards=_shards(item, find_checkpoint),
        draws_timeline=bool(settings.report),
        ranks=ranks,
        rank_budgets=of_rank,
    )
    group = None if ranks > 1 else _group(item, in_worker, settings)
    return IsolatedTest(plan, "", group, growth)


def _reserve_bytes(settings: Settings) -> int:
    """Raises ``SettingError`` for a reserve that this machine can never have."""
    total_bytes = probes.host_memory().total_bytes
    if settings.reserve_bytes is None:
        return default_reserve_bytes(total_bytes)
    if settings.reserve_bytes >= total_bytes:
        reserve, total = format_size(settings.reserve_bytes), format_size(total_bytes)
        msg = f"--llm-reserve: {reserve} cannot stay free of the {total} that there are: write less"
        raise SettingError(msg)
    return settings.reserve_bytes


def _shards(item: pytest.Item, find_checkpoint: FindCheckpoint) -> tuple[str, ...]:
    try:
        checkpoint = find_checkpoint(item)
    except LlmmemError:
        return ()  # the fixture raises it, inside the test
    return tuple(shard.path.name for shard in checkpoint.shards) if checkpoint else ()


def _check_load(item: pytest.Item, budgets: tuple[Budget, ...]) -> None:
    """Raises ``MarkerError`` for a load that cannot be chosen so."""
    marker = LlmLoad.of(item)
    names = getattr(item, "fixturenames", ())
    if marker is not None:
        try:
            strategy_of(item.config, Load(marker.strategy, marker.options, marker.loader))
        except ValueError as error:
            msg = f"llm_load: {error}"
            raise MarkerError(msg) from None
        if "loaded_model" not in names and "predicted_step" not in names:
            why = f"{FITTING} chooses by itself" if FITTING in names else "this test loads nothing through us"
            msg = f"llm_load: {why}: let it use the fixture loaded_model"
            raise MarkerError(msg)
    if FITTING in names and not any(budget.kind == "max_ram" for budget in budgets):
        msg = f"{FITTING} needs a max_ram budget: mark the test with max_ram, or pass --llm-max-ram"
        raise MarkerError(msg)


def _ram_budget(item: pytest.Item, settings: Settings, terms: Terms) -> tuple[Budget, ...]:
    marker = MaxRam.of(item)
    limit = marker.limit if marker else settings.max_ram
    if limit is None:
        return ()
    terms = with_step_terms(terms, item, limit, device="cpu")
    return (
        Budget(
            kind="max_ram",
            limit=limit,
            limit_bytes=_limit_bytes(limit, "max_ram" if marker else "--llm-max-ram", terms),
            count=marker.count if marker else "unreclaimable",
            on_breach=(marker and marker.on_breach) or settings.on_breach,
            enforce=(marker and marker.enforce) or settings.enforce,
        ),
    )


def _disk_budget(item: pytest.Item, settings: Settings, terms: Terms) -> tuple[Budget, ...]:
    marker = MaxDisk.of(item)
    limit = marker.limit if marker else settings.max_disk
    if limit is None:
        return ()
    return (
        Budget(
            kind="max_disk",
            limit=limit,
            limit_bytes=_limit_bytes(limit, "max_disk" if marker else "--llm-max-disk", terms),
            count="written",
            on_breach=(marker and marker.on_breach) or settings.on_breach,
        ),
    )


def _growth_budget(item: pytest.Item, terms: Terms) -> Budget | None:
    marker = MaxGrowth.of(item)
    if marker is None:
        return None
    function = getattr(item, "obj", None)
    if not isinstance(item, pytest.Function) or _is_unittest(item) or inspect.iscoroutinefunction(function):
        msg = "max_growth: only a plain test function can be called again: let this test use memory_growth"
        raise MarkerError(msg)
    limit_bytes = _limit_bytes(marker.limit, "max_growth", terms)
    return Budget(kind="max_growth", limit=marker.limit, limit_bytes=limit_bytes)


def _is_unittest(item: pytest.Function) -> bool:
    return item.cls is not None and issubclass(item.cls, unittest.TestCase)


def _limit_bytes(limit: Limit, where: str, terms: Terms) -> int:
    try:
        return terms.bytes(limit)
    except ValueError as error:
        msg = f"{where}: {error}"
        raise MarkerError(msg) from None


def _terms(item: pytest.Item, find_checkpoint: FindCheckpoint) -> Terms:
    terms = Terms(host_bytes=probes.host_memory().total_bytes)
    try:
        checkpoint = find_checkpoint(item)
    except LlmmemError as error:
        return dataclasses.replace(terms, why_no_model=f" that cannot be read: {error}")
    if checkpoint is None:
        return terms
    if checkpoint.missing:
        return dataclasses.replace(terms, why_no_model=f" that lacks {some_of(checkpoint.missing)}: fetch it")
    model = terms_of(
        weights=checkpoint.weights_bytes,
        shard=checkpoint.largest_shard_bytes,
        largest_layer=checkpoint.largest_layer_bytes,
        parameters=checkpoint.parameters,
        adapter=checkpoint.adapter.weights_bytes if checkpoint.adapter else 0,
    )
    return dataclasses.replace(terms, model=model)


def _group(item: pytest.Item, in_worker: InWorker | None, settings: Settings) -> str | None:
    """Tests that set up a shared thing together, by the node that the thing's scope belongs to."""
    scope = in_worker.scope if in_worker else "function"
    model = ""
    if "loaded_model" in getattr(item, "fixturenames", ()):
        scope = max(scope, settings.scope, key=_WIDTHS.index)
        source, load = source_of(item), load_of(item)
        model = f"{source.text if source else ''}:{load.strategy}:{sorted(load.options.items(), key=str)}"
    if scope == "function":
        return None
    kind = _NODES[scope]
    node = item.getparent(kind) or item.getparent(pytest.Module) or item.session
    return f"{scope}:{node.nodeid}:{model}"


_WIDTHS: Final = ("function", "class", "module", "session")
_NODES: Final[dict[str, type[pytest.Collector]]] = {
    "class": pytest.Class,
    "module": pytest.Module,
    "session": pytest.Session,
}
