"""The parts that sample records are put together from; sizes in MB, times in seconds."""

import random
from dataclasses import replace
from itertools import pairwise

from pytest_llmmem.core.budgets import Budget, Verdict
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.core.record_parts import MarkRecord, Phase, TimelineRecord
from pytest_llmmem.core.records import TestRecord

MB = 10**6
PAGE = 4096

Corner = tuple[float, float, float, float]
"""Seconds, then unreclaimable, file and VRAM in MB; a timeline runs straight between its corners."""


def timeline(*corners: Corner, points: int, marks: tuple[MarkRecord, ...] = ()) -> TimelineRecord:
    """Straight between the corners, the points shared out by time."""
    last = corners[-1][0]
    rows = [corners[0]]
    for start, end in pairwise(corners):
        steps = max(1, round((end[0] - start[0]) / last * points))
        for step in range(1, steps + 1):
            rows.append(tuple(a + (b - a) * step / steps for a, b in zip(start, end, strict=True)))  # type: ignore[arg-type]  # noqa: PERF401
    held = [tuple(int(number * MB) // PAGE * PAGE for number in row[1:]) for row in rows]
    return TimelineRecord(
        seconds=tuple(round(row[0], 4) for row in rows),
        unreclaimable_bytes=tuple(row[0] for row in held),
        file_bytes=tuple(row[1] for row in held),
        vram_bytes=tuple(row[2] for row in held) if any(row[2] for row in held) else (),
        marks=marks,
    )


def ram(peak: float, file: float) -> Peak:
    """Of a forked worker that began with 180 MB; arguments in MB."""
    return Peak(
        baseline_bytes=180 * MB,
        peak_bytes=int(peak * MB),
        peak_resident_bytes=int((peak + file * 0.98) * MB),
        peak_file_bytes=int(file * MB),
        absolute_peak_bytes=int((180 + peak + file * 0.98) * MB),
        error_bytes=1_020_000,
        method="kernel",
        interval_ms=2.0,
    )


def budget(limit: str, limit_mb: float, actual_mb: float, **named: str) -> Verdict:
    named = {"kind": "max_ram", **named}
    asked = Budget(limit=parse_limit(limit), limit_bytes=int(limit_mb * MB), **named)  # type: ignore[arg-type]
    return asked.judge(int(actual_mb * MB))


def phases(*rows: tuple[str, float, float, float]) -> tuple[Phase, ...]:
    """Rows of name, start, seconds, and the peak in MB."""
    return tuple(
        Phase(
            name=name,
            started_s=start,
            seconds=seconds,
            peak_bytes=int(peak * MB),
            peak_resident_bytes=int(peak * MB * 1.1),
        )
        for name, start, seconds, peak in rows
    )


def uneven(test: TestRecord, *, seed: int) -> TestRecord:
    """The same course, in the steps and at the uneven times of real samples."""
    if test.timeline is None:
        return test
    chance = random.Random(seed)
    line = test.timeline

    def steps(values: tuple[int, ...]) -> tuple[int, ...]:
        held = list(values)
        for place in range(1, len(held)):
            if chance.random() < 0.5:
                held[place] = held[place - 1]
        return tuple(held)

    gap = line.seconds[-1] / len(line.seconds)
    seconds = sorted(max(0.0, round(second + chance.uniform(-0.4, 0.4) * gap, 4)) for second in line.seconds)
    columns = (steps(line.unreclaimable_bytes), steps(line.file_bytes), steps(line.vram_bytes))
    return replace(
        test,
        timeline=replace(
            line,
            seconds=tuple(seconds),
            unreclaimable_bytes=columns[0],
            file_bytes=columns[1],
            vram_bytes=columns[2],
        ),
    )
