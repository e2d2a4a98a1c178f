"""The function ``measure``: another function, in a worker of its own, measured and guarded from outside."""

import pickle
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NoReturn, TypeVar

from pytest_llmmem import probes
from pytest_llmmem.core.decide import default_reserve_bytes
from pytest_llmmem.core.errors import LlmmemError, WorkerCrashed
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.core.record_parts import Phase
from pytest_llmmem.core.sizes import format_size, parse_seconds
from pytest_llmmem.measuring.call import Calls, NotImported, Raised, Returned
from pytest_llmmem.measuring.connection import current
from pytest_llmmem.measuring.inner_phases import InnerPhase, with_inner
from pytest_llmmem.measuring.limits import ram_budget, terms_of_machine, vram_budgets
from pytest_llmmem.measuring.measurement import Measurement
from pytest_llmmem.measuring.sources import WorkerKind, open_worker
from pytest_llmmem.probes import driver
from pytest_llmmem.reports import failure
from pytest_llmmem.supervision.job import measure_job
from pytest_llmmem.supervision.plan import JobPlan

T = TypeVar("T")


def measure(
    function: Callable[..., T],
    /,
    *args: Any,
    max_ram: object = None,
    max_vram: object = None,
    timeout: object = None,
    warmup: int = 0,
    worker: WorkerKind = "auto",
    name: str | None = None,
    **kwargs: Any,
) -> Measurement[T]:
    """Run ``function(*args, **kwargs)`` in a process of its own, and return what it needed.

        run = measure(load, "./checkpoint", max_ram="8GB", timeout=60)
        run.check()

    ``max_ram`` and ``max_vram`` are limits as the markers take them, ``timeout`` is in seconds. ``warmup`` is how often the
    function is called before the call that is measured, so that what it imports or fills once does not count.
    ``worker`` is ``"fork"``, ``"spawn"`` or ``"auto"``: forked where that is safe, so that any function works; else a fresh
    interpreter, where the function must be importable. An argument of the function with one of these names is passed by
    ``functools.partial``.

    What the function raises is raised here. A crash, a timeout or a broken budget is not: see ``Measurement.check``.
    Raises ``ValueError`` for an option that cannot be used, and ``LlmmemError`` where there can be no worker.
    """
    __tracebackhide__ = True
    if not callable(function):
        msg = f"measure: {function!r} is not a function: pass the function and its arguments, as in measure(step, 4)"
        raise TypeError(msg)
    if worker not in {"auto", "fork", "spawn"}:
        msg = f"measure: worker is {worker!r}: write 'auto', 'fork' or 'spawn'"
        raise ValueError(msg)
    if not isinstance(warmup, int) or warmup < 0:
        msg = f"measure: warmup is {warmup!r}: write a number of calls, 0 or more"
        raise ValueError(msg)
    budgets = (*_parsed("max_ram", max_ram, ram_budget), *_parsed("max_vram", max_vram, vram_budgets))
    plan = JobPlan(
        budgets=budgets,
        timeout_s=None if timeout is None else _parsed("timeout", timeout, parse_seconds),
        reserve_bytes=default_reserve_bytes(probes.host_memory().total_bytes),
        terms=terms_of_machine(),
        judges_setup=warmup == 0,
    )
    called = name or _name_of(function)
    run = _run(called, Calls(partial(function, *args, **kwargs), warmup), worker, plan)
    if run.inbox.raised is not None:
        _raise(called, run.inbox.raised, run.measured)
    if run.measured.peak is None:
        msg = f"measure: {called}: {failure.death_sentence(run.measured)}"
        raise WorkerCrashed(msg)
    return Measurement(
        name=called,
        peak=run.measured.peak,
        output=run.output,
        _measured=run.measured,
        _returned=run.inbox.returned,
    )


@dataclass(slots=True)
class _Inbox:
    """Messages from the worker."""

    phases: list[InnerPhase] = field(default_factory=list)
    returned: Returned | None = None
    raised: Raised | None = None
    not_imported: str = ""

    def received(self, what: Any) -> None:
        match what:
            case Returned():
                self.returned = what
            case Raised():
                self.raised = what
            case NotImported(why):
                self.not_imported = why
            case InnerPhase():
                self.phases.append(what)

    def progress(self, pid: int, seconds: float, reading: Reading, growth_bytes: int) -> None:
        """Ignore it: nothing displays it."""


@dataclass(frozen=True, slots=True)
class _Run:
    measured: Measured
    inbox: _Inbox
    output: str


def _run(name: str, calls: Calls, kind: WorkerKind, plan: JobPlan) -> _Run:
    inbox = _Inbox()
    needs_gpu = any(budget.kind == "max_vram" for budget in plan.budgets)
    asked = driver.find() if needs_gpu else driver.NoDriver("no budget is of a GPU")
    with tempfile.TemporaryFile() as file:
        try:
            with open_worker(calls, kind, file.fileno()) as ready:
                began = time.monotonic()
                measured = measure_job(ready.worker, ready.job, last=True, plan=plan, listener=inbox, driver=asked)
        except LlmmemError as error:
            msg = f"measure: {name}: {error}"
            raise LlmmemError(msg) from None
        file.seek(0)
        output = file.read().decode(errors="replace")
    if inbox.not_imported:
        msg = f"measure: {name}: the worker is a fresh interpreter, and cannot import it there: {inbox.not_imported}"
        raise LlmmemError(msg)
    phases = with_inner(measured.phases, inbox.phases, began)
    if calls.warmup:
        phases = _of_the_call(phases)
    measured = replace(measured, phases=phases, notes=(*ready.notes, *measured.notes))
    if (connection := current()) is not None and measured.peak is not None:
        peak = measured.peak
        phase = Phase(
            name=name,
            peak_bytes=peak.peak_bytes,
            peak_resident_bytes=peak.peak_resident_bytes,
            seconds=measured.seconds,
            vram=measured.vram,
        )
        connection.send(InnerPhase(phase, began))
    return _Run(measured, inbox, output)


def _of_the_call(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
    """Without those of the warm-up calls before it; none when it did not begin."""
    names = [phase.name for phase in phases]
    return phases[names.index("call") + 1 :] if "call" in names else ()


def _parsed(option: str, value: object, parse: Callable[[Any], Any]) -> Any:
    __tracebackhide__ = True
    try:
        return parse(value)
    except ValueError as error:
        msg = f"measure: {option}: {error}"
        raise ValueError(msg) from None


def _name_of(function: Callable[..., Any]) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__)).rpartition("<locals>.")[2]


class WorkerTraceback(Exception):  # noqa: N818 -- it is where an error came from
    """Shows where in the worker an exception was raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _raise(name: str, raised: Raised, measured: Measured) -> NoReturn:
    """Raise the exception that a direct call of the function would raise."""
    __tracebackhide__ = True
    error: BaseException = LlmmemError(f"{name} raised {raised.text}")
    if raised.pickled:
        error = pickle.loads(raised.pickled)  # noqa: S301 -- from our own worker
    if measured.peak is not None:
        error.add_note(f"{name} had used {format_size(measured.peak.peak_bytes)} unreclaimable until then")
    raise error from WorkerTraceback(raised.traceback)
