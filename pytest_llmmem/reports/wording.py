"""Wording that all summaries share: order of the tests, headline, states, environment."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.record_parts import RankRecord, VramRecord
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.core.sizes import format_size, unit_of
from pytest_llmmem.core.stacks import stack_heading

FAILURES: Final = frozenset({"failed", "error"})
"""Outcomes that fail the session."""

_WORST: Final = {"failed": 0, "error": 0, "xfailed": 1, "xpassed": 1, "passed": 2, "skipped": 3}
_ELSEWHERE: Final = {"max_vram": " VRAM", "max_disk": " disk", "keeps": " kept", "max_growth": " a call"}
"""Budgets of something else than the peak of the host's memory."""
_ORDINARY: Final = frozenset({"completed", "raised"})
"""Endings that the outcome already shows."""


def worst_first(tests: Iterable[TestRecord]) -> list[TestRecord]:
    """Failures, then those nearest to their budget, then the largest."""
    return sorted(tests, key=_badness)


def _badness(test: TestRecord) -> tuple[int, float, int]:
    budget = tightest(test.budgets)
    share = budget.actual_bytes / max(1, budget.limit_bytes) if budget else 0.0
    return _WORST[test.outcome], -share, -(test.ram.peak_bytes if test.ram else 0)


def headline(record: SessionRecord) -> str:
    """``"3 isolated tests: 2 failed, 1 passed; 1 over budget, 1 crashed"``, and whether those are not all."""
    interrupted = f". Interrupted, {record.interrupted}: the others did not run" if record.interrupted else ""
    return f"{_outcomes(record)}{interrupted}"


def _outcomes(record: SessionRecord) -> str:
    if not record.tests:
        return "No test ran to its end" if record.interrupted else "No test ran in a worker"
    outcomes = _counted(test.outcome for test in worst_first(record.tests))
    endings = _counted(test.ending.kind.replace("_", " ") for test in record.tests if test.ending.kind not in _ORDINARY)
    count = len(record.tests)
    return f"{count} isolated test{'s' if count > 1 else ''}: {'; '.join(filter(None, (outcomes, endings)))}"


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in Counter(words).items())


def state(test: TestRecord) -> str:
    """``"failed: crashed SIGSEGV in call"``; the outcome alone where the ending adds nothing to it."""
    return test.outcome if test.ending.kind in _ORDINARY else f"{test.outcome}: {ending_words(test.ending)}"


def reasons(test: TestRecord) -> list[str]:
    """Why a test ended as it did: what broke or grew, evidence, exception, place in a load, diagnosis."""
    broken = (budget.sentence for budget in test.budgets if not budget.held)
    grown = test.baseline.sentence if test.baseline and test.baseline.verdict == "grew" else ""
    place = f"at {test.ending.place}" if test.ending.place else None
    diagnosis = test.diagnosis.lines if test.diagnosis else ()
    return [line for line in (*broken, grown, test.ending.note, test.ending.error, place, *diagnosis) if line]


def circumstances(environment: Mapping[str, str | int | float | None]) -> list[tuple[str, str]]:
    """The environment of the numbers, as pairs of words; unknown facts are left out."""
    return [
        (name.removesuffix("_bytes").replace("_", " "), _shown(name, value))
        for name, value in environment.items()
        if value is not None
    ]


def stack_words(test: TestRecord) -> str:
    """``"Stack at the crossing, yours first"``, and what of it is missing; empty without one."""
    return f"Stack {stack_heading(test.stack_at or 'the end', test.stack_cut)}" if test.stack else ""


def _shown(name: str, value: str | float) -> str:
    return format_size(value) if name.endswith("_bytes") and not isinstance(value, str) else str(value)


def encodable(text: str) -> str:
    """The same text, with a question mark for what UTF-8 cannot hold: half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def rank_words(rank: RankRecord) -> str:
    """``"83.0 MB, resident 89.0 MB, holds 40.1 MB: crashed SIGABRT in call"``, and why, where it did not go on to its end."""
    holds = "" if rank.held_bytes is None else f", holds {format_size(rank.held_bytes)}"
    ending = rank.ending
    words = f": {ending_words(ending)}" if ending and ending.kind != "completed" else ""
    why = next((f": {text}" for text in (ending.error, ending.note) if text), "") if ending else ""
    return f"{format_size(rank.peak_bytes)}, resident {format_size(rank.peak_resident_bytes)}{holds}{words}{why}"


def ending_words(ending: Ending) -> str:
    """``"crashed SIGSEGV in call"``."""
    code = f"code {ending.exit_code}" if ending.exit_code is not None else None
    rank = None if ending.rank is None else f"of rank {ending.rank}"
    words = (ending.kind.replace("_", " "), ending.signal or code, f"in {ending.phase}" if ending.phase else None, rank)
    return " ".join(word for word in words if word)


def limit_words(budget: Verdict) -> str:
    """``"4.00 GB"``; with what it counts where that is something else, ``"4.00 GB VRAM"``, and a block's name."""
    resident = " resident" if budget.count == "resident" else ""
    where = f" in {budget.name!r}" if budget.name else ""
    return f"{format_size(budget.limit_bytes, unit_of(budget.limit))}{_ELSEWHERE.get(budget.kind, '')}{resident}{where}"


def share_words(budget: Verdict) -> str:
    """``"85%"``: how much of a budget was used, more than all of it where that broke it; empty for a limit of 0."""
    if not budget.limit_bytes:
        return ""
    percent = round(100 * budget.actual_bytes / budget.limit_bytes)
    exceeded = not budget.held and budget.actual_bytes > budget.limit_bytes
    return f"{max(101, percent) if exceeded else percent}%"


def unit_beside(budget: Verdict | None) -> str | None:
    """The unit to print host memory in beside a budget: its own, if it is one of host memory."""
    return unit_of(budget.limit) if budget and budget.kind not in _ELSEWHERE else None


def pinned_words(pinned_bytes: int) -> str:
    """``"1.20 GB of host memory were page-locked"``."""
    return f"{format_size(pinned_bytes)} of host memory were page-locked for transfers to a GPU"


def vram_words(vram: VramRecord) -> str:
    """``"cuda:0 3.38 GB reserved, 3.12 GB allocated, 0.20 GB in pieces"``, and what the driver says, where it was asked."""
    pieces = f", {format_size(vram.peak_fragmented_bytes)} in pieces" if vram.peak_fragmented_bytes else ""
    device = ""
    if vram.peak_device_bytes is not None:
        beside = format_size(max(0, vram.peak_device_bytes - vram.peak_reserved_bytes))
        of = "all processes" if vram.device_method == "device" else f"{beside} beside torch"
        device = f", {format_size(vram.peak_device_bytes)} by the driver ({of})"
    reserved, allocated = format_size(vram.peak_reserved_bytes), format_size(vram.peak_allocated_bytes)
    return f"{vram.device} {reserved} reserved, {allocated} allocated{pieces}{device}"


def tightest(budgets: Sequence[Verdict]) -> Verdict | None:
    """The budget that is used most, as a share of itself."""
    return max(budgets, key=lambda budget: budget.actual_bytes / max(1, budget.limit_bytes), default=None)
