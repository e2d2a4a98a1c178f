"""Several sessions as one record: each becomes a cell, so that equal node ids of two sessions stay apart."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_llmmem.core.records import CellRecord, SessionRecord, TestRecord
from pytest_llmmem.reports.wording import FAILURES, headline

Facts = Mapping[str, str | int | float | None]


def merge(sessions: Sequence[tuple[CellRecord, SessionRecord]]) -> SessionRecord:
    """One record of several sessions, each under the cell's name; a record that is merged already keeps its own cells.

    Where two such records have cells of one name, all of their cells are named after their record, too. Raises
    ``ValueError`` when that does not tell them apart.
    """
    names = [each.name for cell, session in sessions for each in session.cells or (cell,)]
    if len(set(names)) < len(names):
        sessions = [(cell, _below(cell.name, session)) for cell, session in sessions]
    environments: dict[tuple[tuple[str, object], ...], int] = {}
    facts: list[Facts] = []
    cells: dict[str, CellRecord] = {}
    tests: list[TestRecord] = []

    def index_of(environment: Facts) -> int:
        key = tuple(environment.items())
        if key not in environments:
            environments[key] = len(facts)
            facts.append(environment)
        return environments[key]

    for cell, session in sessions:
        for each in session.cells or (cell,):
            if each.name in cells:
                msg = f"two reports have a cell {each.name!r}: merge each report once"
                raise ValueError(msg)
            cells[each.name] = each
        named: Facts = {"name": cell.environment} if cell.environment else {}
        for test in session.tests:
            where = index_of({**named, **session.environment_of(test)})
            tests.append(replace(test, cell=test.cell or cell.name, environment=where))
    return SessionRecord(
        environment=_shared(facts),
        environments=tuple(facts),
        cells=tuple(cells.values()),
        tests=tuple(tests),
        interrupted="; ".join(f"{cell.name} {each.interrupted}" for cell, each in sessions if each.interrupted) or None,
    )


def cell_of(name: str, session: SessionRecord) -> CellRecord:
    """The summary of a session that nothing else is known of."""
    failed = any(test.outcome in FAILURES for test in session.tests)
    models = {test.model.source for test in session.tests if test.model}
    loads = {test.model.load for test in session.tests if test.model}
    return CellRecord(
        name=name,
        outcome="failed" if failed or session.interrupted else "passed",
        model=_only(models),
        load=_only(loads),
        sentence=headline(session) if failed or session.interrupted else "",
        tests=len(session.tests),
        peak_bytes=max((test.ram.absolute_peak_bytes for test in session.tests if test.ram), default=None),
        seconds=sum(test.duration_s for test in session.tests),
    )


def _below(name: str, session: SessionRecord) -> SessionRecord:
    """A merged record with the names of its cells and environments below another name."""
    if not session.cells:
        return session
    return replace(
        session,
        cells=tuple(
            replace(cell, name=f"{name}/{cell.name}", environment=f"{name}/{cell.environment or ''}".strip("/"))
            for cell in session.cells
        ),
        environments=tuple(
            {**facts, "name": f"{name}/{facts.get('name', '')}".strip("/")} for facts in session.environments
        ),
        tests=tuple(replace(test, cell=f"{name}/{test.cell}") for test in session.tests),
    )


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name for each report: the parts of its path that are not the same in all of them, without the ending.

    ``a/bert/memory.json`` and ``a/llama/memory.json`` are ``bert`` and ``llama``.
    """
    parts = [path.with_suffix("").parts for path in paths]
    shortest = min(map(len, parts))
    before = _alike(parts, shortest - 1)
    after = _alike([each[::-1] for each in parts], shortest - before - 1)
    return ["/".join(each[before : len(each) - after]) for each in parts]


def _alike(rows: Sequence[Sequence[str]], most: int) -> int:
    """Number of leading elements that are equal in all rows, up to a maximum."""
    return next((place for place in range(most) if len({row[place] for row in rows}) > 1), max(0, most))


def _shared(environments: Iterable[Facts]) -> Facts:
    first, *others = [*environments] or [{}]
    return {key: value for key, value in first.items() if all(each.get(key) == value for each in others)}


def _only(values: set[str]) -> str | None:
    return next(iter(values)) if len(values) == 1 else None
