"""The session as one page. Every number in it is the record's."""

import base64
import sys
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import repeat
from operator import sub, truediv
from typing import Any, Final

from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.record_parts import RankRecord, TimelineRecord
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.core.sizes import UNITS, format_beside, unit_of
from pytest_llmmem.core.stacks import elided
from pytest_llmmem.reports.page import fill_page
from pytest_llmmem.reports.wording import (
    circumstances,
    headline,
    reasons,
    share_words,
    stack_words,
    state,
    tightest,
    unit_beside,
    worst_first,
)

_FRAMES: Final = 40
_MOST: Final = 5000
"""Tests of one page: some 10 MB without timelines."""
_FINEST_S: Final = 1e-4
_FINEST_BYTES: Final = 1024
_LARGEST: Final = 2**30
"""No packed number is larger, so that every difference of two fits 32 bits."""


def render(record: SessionRecord) -> str:
    """The whole page, to be written as UTF-8."""
    tests = worst_first(record.tests)
    told = headline(record) + (
        f". Shown are the {_MOST:,} worst; the JSON report has all" if len(tests) > _MOST else ""
    )
    data = {
        "units": UNITS,
        "environment": circumstances(record.environment),
        "cells": [asdict(cell) for cell in record.cells],
        "tests": [_test(test) for test in tests[:_MOST]],
    }
    return fill_page("page.html", words={"headline": told}, data=data, scripts=("cells.js", "page.js"))


def _test(test: TestRecord) -> dict[str, Any]:
    """The record as in its JSON, with a packed timeline and the text of every summary."""
    worst = tightest(test.budgets)
    plain = replace(test, timeline=None, ranks=tuple(replace(rank, timeline=None) for rank in test.ranks)).to_json()
    return {
        **plain,
        "nodeid": test.full_name,
        "budgets": [each | _shown(budget) for each, budget in zip(plain["budgets"], test.budgets, strict=True)],
        "state": state(test),
        "reasons": reasons(test),
        "stack": elided(test.stack, test.stack_own, most=_FRAMES),
        "stack_words": stack_words(test),
        "tightest": test.budgets.index(worst) if worst else None,
        "unit": unit_beside(worst),
        "timeline": _packed(test.timeline, test.ranks) if test.timeline and len(test.timeline.seconds) > 1 else None,
    }


def _shown(budget: Verdict) -> dict[str, str]:
    """A limit and its use as its sentence has them, and the share."""
    limit, used, _ = format_beside(budget.limit_bytes, budget.actual_bytes, unit_of(budget.limit))
    return {"limit_shown": limit, "used_shown": used, "share_shown": share_words(budget)}


def _packed(line: TimelineRecord, ranks: Sequence[RankRecord]) -> dict[str, Any]:
    """A timeline in a byte or so per number: differences of whole steps, their bytes by rank, deflated.

    ``steps`` has what one step is in each column (seconds, unreclaimable, file, VRAM where it was read, and unreclaimable of
    the ``ranks`` that are named): 0.1 ms and 1 KiB, as fine as the samples, or more where a number would not fit.
    """
    columns: list[tuple[Sequence[float], float]] = [
        (line.seconds, _FINEST_S),
        (line.unreclaimable_bytes, _FINEST_BYTES),
        (line.file_bytes, _FINEST_BYTES),
    ]
    if line.vram_bytes:
        columns.append((line.vram_bytes, _FINEST_BYTES))
    drawn = [(rank.rank, rank.timeline) for rank in ranks if rank.timeline and rank.timeline.seconds]
    columns += [(_aligned(own, line.seconds), _FINEST_BYTES) for _, own in drawn]
    steps = [max(finest, max(map(abs, column)) / _LARGEST) for column, finest in columns]
    differences = array("i")
    for (column, _), step in zip(columns, steps, strict=True):
        whole = list(map(round, map(truediv, column, repeat(step))))
        differences.extend(map(sub, whole, [0, *whole]))
    raw = _little_endian(differences)
    by_rank = b"".join(raw[rank::4] for rank in range(4))  # the high bytes are nearly all alike: half the size
    marks = [asdict(mark) for mark in line.marks]
    return {
        "steps": steps,
        "data": base64.b64encode(zlib.compress(by_rank)).decode(),
        "marks": marks,
        "ranks": [rank for rank, _ in drawn],
    }


def _aligned(line: TimelineRecord, seconds: Sequence[float]) -> list[int]:
    """The highest memory of a rank between two of these moments, or its last value where it has no sample between them."""
    aligned, last, point = [], 0, 0
    for moment in seconds:
        highest = 0
        while point < len(line.seconds) and line.seconds[point] <= moment:
            last = line.unreclaimable_bytes[point]
            highest = max(highest, last)
            point += 1
        aligned.append(max(highest, last))
    return aligned


def _little_endian(numbers: "array[int]") -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
