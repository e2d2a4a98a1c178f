"""The timelines in Chrome's trace format: counters, phases and marks that open in Perfetto and ``chrome://tracing``.

Each test is a process of its own, the worst first, and each begins at 0: the record does not say when in the session it ran.
The format is Google's "Trace Event Format": microseconds, and by ``ph`` counters (``C``), phases (``X``), moments (``i``)
and names (``M``).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.record_parts import Phase, TimelineRecord
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.core.steps import KINDS, StepMemory
from pytest_llmmem.reports.wording import reasons, stack_words, state, worst_first

_COUNTERS: Final = {"max_ram": "RAM", "max_vram": "VRAM"}
"""The counter beside which a budget's line belongs."""

Event = dict[str, Any]


def render(record: SessionRecord) -> str:
    """One event on each line."""
    numbered = enumerate(worst_first(record.tests), start=1)
    events = (json.dumps(event, separators=(",", ":")) for number, test in numbered for event in _events(number, test))
    facts = json.dumps(dict(record.environment), separators=(",", ":"))
    lines = ",\n".join(events)
    return f'{{"displayTimeUnit":"ms","otherData":{facts},"traceEvents":[\n{lines}\n]}}\n'


def _events(pid: int, test: TestRecord) -> Iterator[Event]:
    yield {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": test.full_name}}
    yield {"ph": "M", "name": "process_labels", "pid": pid, "args": {"labels": state(test)}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}}
    yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": pid, "args": {"name": "phases"}}
    for phase in test.phases:
        start, end = _microseconds(phase.started_s), _microseconds(phase.started_s + phase.seconds)
        place = {"pid": pid, "tid": pid, "ts": start, "dur": end - start}
        yield {"ph": "X", "name": phase.name, **place, "args": {"peak_bytes": phase.peak_bytes}}
    if test.timeline and test.timeline.seconds:
        yield from _samples(pid, test.timeline)
        yield from _marks(pid, test, test.timeline)
        for budget in test.budgets:
            yield from _limit(pid, budget, test.timeline)
    for memory in test.steps:
        yield from _tensors(pid, memory.name, memory, test.phases)
        if memory.predicted is not None:
            yield from _tensors(pid, f"{memory.name} predicted", memory.predicted, test.phases)


def _samples(pid: int, line: TimelineRecord) -> Iterator[Event]:
    yield from _counts(pid, "RAM", line.seconds, {"unreclaimable": line.unreclaimable_bytes, "file": line.file_bytes})
    if line.vram_bytes:
        yield from _counts(pid, "VRAM", line.seconds, {"bytes": line.vram_bytes})


def _counts(pid: int, name: str, seconds: Sequence[float], columns: Mapping[str, Sequence[int]]) -> Iterator[Event]:
    """A counter holds its values until the next event: a level stretch needs its first, and the end of the test a 0."""
    before: tuple[int, ...] = ()
    for second, *row in zip(seconds, *columns.values(), strict=True):
        if (values := tuple(row)) != before:
            yield _counter(pid, name, second, dict(zip(columns, values, strict=True)))
            before = values
    yield _counter(pid, name, seconds[-1], dict.fromkeys(columns, 0))


def _tensors(pid: int, name: str, memory: StepMemory, phases: Sequence[Phase]) -> Iterator[Event]:
    """The tensors at the peak of each phase, by kind, from the phase's beginning on.

    Where no span was recorded, as for a prediction alone, each phase lasts a second.
    """
    recorded = {phase.name: phase for phase in reversed(phases)}
    spans = [recorded.get(f"{phase.phase} {phase.step}") for phase in memory.phases]
    known = [span for span in spans if span is not None]
    if len(known) == len(spans):
        seconds = [span.started_s for span in known]
        end = max((span.started_s + span.seconds for span in known), default=0.0)
    else:
        seconds, end = [float(number) for number in range(len(spans))], float(len(spans))
    kinds = [kind for kind in KINDS if any(phase.by_kind.get(kind) for phase in memory.phases)]
    columns = {kind: [phase.by_kind.get(kind, 0) for phase in memory.phases] for kind in kinds}
    if kinds:
        yield from _counts(pid, name, [*seconds, end], {kind: [*sizes, sizes[-1]] for kind, sizes in columns.items()})


def _marks(pid: int, test: TestRecord, timeline: TimelineRecord) -> Iterator[Event]:
    for mark in timeline.marks:
        told: Event = {"text": mark.text}
        if mark.kind != "shard":
            told |= {"stack": "\n".join((stack_words(test), *test.stack)), "reasons": "\n".join(reasons(test))}
        place = {"pid": pid, "tid": pid, "ts": _microseconds(mark.seconds)}
        yield {"ph": "i", "s": "p", "name": mark.text if mark.kind == "shard" else mark.kind, **place, "args": told}


def _limit(pid: int, budget: Verdict, timeline: TimelineRecord) -> Iterator[Event]:
    """A level line over the whole test; a block's budget counts from its own beginning and has none."""
    if budget.name is None and (counter := _COUNTERS.get(budget.kind)):
        column = {f"{budget.kind} {budget.limit}": [budget.limit_bytes] * 2}
        yield from _counts(pid, f"{counter} budget", (timeline.seconds[0], timeline.seconds[-1]), column)


def _counter(pid: int, name: str, seconds: float, values: dict[str, int]) -> Event:
    return {"ph": "C", "name": name, "pid": pid, "ts": _microseconds(seconds), "args": values}


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)
