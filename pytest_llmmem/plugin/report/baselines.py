"""Baselines in a session: every test is compared with its own as it ends, and all are written when asked to."""

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest

from pytest_llmmem.baselines import file as store
from pytest_llmmem.baselines.compare import Comparison, compare
from pytest_llmmem.baselines.machine import machine_key, nearest
from pytest_llmmem.baselines.measures import DECIDING
from pytest_llmmem.baselines.renamed_tests import moves, without_test
from pytest_llmmem.baselines.tolerance import Tolerance, parse_tolerance
from pytest_llmmem.baselines.tolerated_changes import is_changed
from pytest_llmmem.baselines.values import Baseline, finished, runs_of
from pytest_llmmem.core.errors import BaselineError
from pytest_llmmem.core.record_parts import BaselineRecord
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.plugin.markers import LlmBaseline
from pytest_llmmem.plugin.report.environment import environment
from pytest_llmmem.plugin.settings import Settings


def baselines_path(config: pytest.Config, settings: Settings) -> Path | None:
    """The file to compare with or to write; ``None`` when the session has none."""
    path = settings.baseline or config.rootpath / store.NAME
    return path if settings.baseline or settings.baseline_update or path.exists() else None


class Judge:
    """Compares tests with the baselines that were there when the session began."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Raises ``BaselineError`` for a file that cannot be used, or that was named and is not there."""
        if not settings.baseline_update and not path.exists():
            msg = f"--llm-baseline: there is no {path}: name the file that was committed, or write one with --llm-baseline-update"
            raise BaselineError(msg)
        self._settings = settings
        self._known = store.check(path, writing=settings.baseline_update)
        self._environment = environment(settings)

    def allows_bytes(self, item: pytest.Item) -> int | None:
        """Unreclaimable growth beyond which a test has grown, as far as that is known before it runs."""
        match = nearest(machine_key(self._environment, ()), self._known.machines)
        before = self._known.of(match.key).get(item.nodeid) if match and not self._settings.baseline_update else None
        if before is None or "unreclaimable" not in self._only(item):
            return None
        return before.peak_bytes + self._tolerance(item).bytes(before.peak_bytes) + before.error_bytes

    def judge(self, item: pytest.Item, runs: Sequence[TestRecord]) -> Comparison | None:
        """The runs of one test beside its baseline; ``None`` when all is to be accepted as it is."""
        if self._settings.baseline_update:
            return None
        key = machine_key(self._environment, {each.device for run in runs for each in run.vram})
        match = nearest(key, self._known.machines)
        return compare(
            self._known.of(match.key).get(item.nodeid) if match else None,
            runs,
            self._tolerance(item),
            only=self._only(item),
            machine=match,
        )

    def clear(self, item: pytest.Item, runs: Sequence[TestRecord]) -> Sequence[TestRecord]:
        """The runs of one test that are exact enough for a comparison or a baseline; the best run where none is."""
        tolerance = self._tolerance(item)
        clear = [run for run in runs if run.ram and tolerance.covers_error(run.ram)]
        return clear or [min(runs, key=lambda run: run.ram.error_bytes if run.ram else 0)]

    def asks_for_another(self, item: pytest.Item, runs: Sequence[TestRecord]) -> bool:
        """Whether one more run may decide: the measurement error of these runs was larger than the tolerance."""
        tolerance, clear = self._tolerance(item), self.clear(item, runs)
        comparison = self.judge(item, clear)
        if comparison is None:
            return not any(run.ram and tolerance.covers_error(run.ram) for run in clear)
        # if the baseline itself is uncertain, another run cannot decide
        is_uncertain = comparison.verdict == "uncertain"
        return is_uncertain and comparison.before is not None and tolerance.covers_error(comparison.before)

    def _tolerance(self, item: pytest.Item) -> Tolerance:
        marker = LlmBaseline.of(item)
        return (marker and marker.tolerance) or self._settings.tolerance

    @staticmethod
    def _only(item: pytest.Item) -> Sequence[str]:
        marker = LlmBaseline.of(item)
        return (marker and marker.only) or DECIDING


def record_of(comparison: Comparison) -> BaselineRecord:
    """The record of a comparison."""
    verdict = comparison.verdict
    assert verdict != "gone", "a test that has run is there"
    return BaselineRecord(
        verdict=verdict,
        sentence=comparison.sentence(),
        machine=str(comparison.machine) if comparison.machine and comparison.before else None,
        before_bytes=comparison.before.peak_bytes if comparison.before else None,
        after_bytes=comparison.after.peak_bytes if comparison.after else None,
    )


@dataclass(frozen=True, slots=True)
class Collected:
    """The tests of a session, and what is on disk beside them."""

    nodeids: frozenset[str]
    """Also of tests that were deselected."""
    whole_files: bool
    """Whether all of each file was to be collected."""
    root: Path

    @classmethod
    def by(cls, config: pytest.Config, nodeids: Iterable[str]) -> Self:
        """The collection of this session."""
        last_failed = config.getoption("lf", default=False)
        named = any("::" in argument for argument in config.args)
        return cls(frozenset(nodeids), whole_files=not (last_failed or named), root=config.rootpath)

    def without_test(self, known: Iterable[str]) -> tuple[str, ...]:
        """The baselines of removed tests."""
        return without_test(
            known, self.nodeids, lambda file: (self.root / file).is_file(), whole_files=self.whole_files
        )


def write(path: Path, session: SessionRecord, settings: Settings, collected: Collected) -> list[str]:
    """Write what the tests of this session use as their baselines; returns the messages. Raises ``BaselineError``."""
    origin = {"commit": _commit(collected.root), "date": datetime.now(UTC).isoformat(timespec="seconds")}
    now: dict[str, dict[str, Baseline]] = {}
    for test in filter(finished, session.tests):
        key = machine_key(session.environment, {each.device for each in test.vram})
        now.setdefault(key, {})[test.nodeid] = Baseline.of(runs_of(test), **origin)
    tolerances = {test.nodeid: test.tolerance for test in session.tests}
    told = []
    for key, tests in now.items():
        known = store.read(path).of(key)
        changed = {
            nodeid: each
            for nodeid, each in tests.items()
            if is_changed(known.get(nodeid), each, _tolerance(tolerances[nodeid], settings))
        }
        gone = collected.without_test(known)
        store.update(path, key, changed, gone=gone)
        kept = len(tests) - len(changed)
        counts = f"{len(changed)} written, {kept} kept as they were, {len(gone)} removed with their tests"
        told.append(f"{path.name}: {key}: {counts}")
        told += [f"{path.name}: removed: {nodeid}" for nodeid in gone]
        told += [
            f"{path.name}: {nodeid} can be off by {format_size(each.error_bytes)}, more than its tolerance: "
            "it will judge nothing; update it when the machine does less"
            for nodeid, each in changed.items()
            if not _tolerance(tolerances[nodeid], settings).covers_error(each)
        ]
    cut_short = sum(not finished(test) and test.outcome != "skipped" for test in session.tests)
    if told and cut_short:
        told.append(f"{path.name}: {cut_short} did not run to the end, and nothing was written of them")
    return told or [f"{path.name}: no isolated test ran to its end, so nothing was written"]


def _tolerance(own: str | None, settings: Settings) -> Tolerance:
    return settings.tolerance if own is None else parse_tolerance(own)


def messages(path: Path, session: SessionRecord, settings: Settings, collected: Collected) -> list[str]:
    """Messages about tests and their baselines, except failed tests: their reports contain the message."""
    compared = [test for test in session.tests if test.baseline]
    told = [
        f"{test.nodeid}: {test.baseline.sentence}"
        for test in compared
        if test.baseline and test.baseline.verdict in {"shrank", "uncertain", "incomparable"}
    ]
    new = {
        test.nodeid: Baseline.of([test])
        for test in compared
        if test.baseline and test.baseline.verdict == "new" and test.ram
    }
    if new:
        told.append(f"{len(new)} without a baseline: --llm-baseline-update writes them")
    borrowed = sorted({test.baseline.machine for test in compared if test.baseline and test.baseline.machine})
    told += [f"compared with the baselines of {machine}" for machine in borrowed]
    known = store.read(path)
    match = nearest(machine_key(environment(settings), ()), known.machines)
    if match and new:
        gone = collected.without_test(known.of(match.key))
        told += [move.sentence() for move in moves({nodeid: known.of(match.key)[nodeid] for nodeid in gone}, new)]
    return told


def _commit(root: Path) -> str | None:
    try:
        asked = subprocess.run(
            # --exclude: by its number, never by a tag; -dirty: what was measured is in no commit
            ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=10"],  # noqa: S607 -- whichever git the user has
            cwd=root, capture_output=True, encoding="utf-8", errors="replace", check=False,
        )  # fmt: skip
    except OSError:
        return None
    return asked.stdout.strip() or None
