"""The text of a failure: one sentence, then the details to act on it, in at most twenty lines."""

import math
from collections.abc import Sequence
from typing import Final

from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.children import ChildrenRecord
from pytest_llmmem.core.decide import FINISH_FACTOR
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.record_parts import RankRecord, VramRecord
from pytest_llmmem.core.sizes import format_beside, format_size
from pytest_llmmem.core.stacks import Stack, elided, stack_heading
from pytest_llmmem.reports.wording import pinned_words, rank_words, vram_words

_FRAMES: Final = 8
_RANK_FRAMES: Final = 3
"""Maximum number of stack frames that are shown for each rank."""
_CHILDREN: Final = 6
"""Maximum number of processes that are shown."""
_ROUND_UP: Final = 1.01
"""A limit at exactly what was used would be broken by the next run."""


def death_sentence(measured: Measured) -> str:
    """One sentence: the end of the worker, its phase, time and memory."""
    ending = measured.ending
    one = measured.peak if ending.rank is None else measured.ranks[ending.rank]
    used = one is not None and one.peak_bytes > (one.error_bytes or 0)
    peak = f", having used {format_size(one.peak_bytes)}" if one and used else ""
    where = f"in {ending.phase} " if ending.phase else ""
    after = f"{where}after {measured.seconds:.1f} s{peak}"
    if ending.kind == "over_budget" and (verdict := _broken(measured)):
        return f"{verdict.sentence}; stopped {_at(verdict)}{where}after {measured.seconds:.1f} s{_note(ending)}"
    rank = "" if ending.rank is None else f"rank {ending.rank}: "
    return f"{rank}{_what(ending)} {after}{_note(ending)}"


def _at(verdict: Verdict) -> str:
    """Words for a budget that is not enforced at its limit, but at a multiple of it."""
    factor = verdict.actual_bytes / verdict.limit_bytes
    return "at twice the limit " if verdict.on_breach == "finish" and factor >= FINISH_FACTOR else ""


def _what(ending: Ending) -> str:
    match ending.kind:
        case "timed_out":
            return "timed out"
        case "over_budget":
            return "stopped"
        case "out_of_memory":
            return "killed because memory ran out (SIGKILL)"
        case "crashed":
            return f"crashed with {ending.signal}"
        case "exited" | "completed" | "raised" | "ended":
            code = "" if ending.exit_code is None else f" with code {ending.exit_code}"
            return f"exited{code}"


def _note(ending: Ending) -> str:
    return f": {ending.note}" if ending.note else ""


def details(measured: Measured, *, root: str) -> str:
    """The section under the failure; files below ``root`` are shown relative to it."""
    lines = []
    if (peak := measured.peak) is not None:
        lines.append(
            f"peak      {format_size(peak.peak_bytes)} unreclaimable (± {format_size(peak.error_bytes)}), "
            f"{format_size(peak.peak_file_bytes)} of mapped files, "
            f"{format_size(peak.peak_resident_bytes)} resident, {format_size(peak.absolute_peak_bytes)} in all"
        )
    if measured.children is not None:
        lines.append(f"children  {measured.children.words()}")
        lines += child_lines(measured.children)
    if measured.phases:
        phases = (f"{phase.name} {format_size(phase.peak_bytes)} in {phase.seconds:.1f} s" for phase in measured.phases)
        lines.append("phases    " + ", ".join(phases))
    lines += [f"vram      {_vram_line(vram, measured)}" for vram in measured.vram]
    if measured.pinned_bytes:
        lines.append(f"pinned    {pinned_words(measured.pinned_bytes)}")
    # the ranks of a launch are among the children
    lines += rank_lines([rank for rank in measured.ranks if rank.ending or measured.children is None])
    lines += [f"budget    {verdict.sentence}" for verdict in measured.verdicts]
    # what a test needs that was refused more is unknown
    if (verdict := _broken(measured)) and not measured.ending.died and measured.refusing_limit is None:
        used_bytes = verdict.actual_bytes
        _, enough, _ = format_beside(used_bytes, math.ceil(used_bytes * _ROUND_UP), verdict.unit)
        lines.append(f"passes    with {enough} or more")
    if measured.place:
        lines.append(f"place     {measured.place}")
    if measured.alive:
        lines.append("alive     " + ", ".join(each.words() for each in measured.alive))
    lines += stack_lines(measured.stack, root=root)
    lines += [f"note      {note}" for note in measured.notes]
    return "\n".join(lines)


def child_lines(children: ChildrenRecord) -> list[str]:
    """The largest processes of a test that started several with different commands or ranks: each at its own peak."""
    if len({(each.command, each.rank) for each in children.each}) < 2:
        return []
    return [f"  {each.words()}" for each in children.each[:_CHILDREN]]


def rank_lines(ranks: Sequence[RankRecord]) -> list[str]:
    """Lines with each rank's memory, ending and stack."""
    lines = []
    for rank in ranks:
        lines.append(f"rank {rank.rank:<4} {rank_words(rank)}")
        lines += [f"  {frame}" for frame in rank.stack[:_RANK_FRAMES]]
    return lines


def stack_lines(stack: Stack, *, root: str) -> list[str]:
    """A stack as a part of such a section; nothing where there is none."""
    if not stack.frames:
        return []
    frames = elided([frame.shown(root) for frame in stack.users_first], len(stack.users), most=_FRAMES)
    return [f"stack     {stack_heading(stack.at, stack.cut)}", *(f"  {frame}" for frame in frames)]


def _vram_line(vram: VramRecord, measured: Measured) -> str:
    """One device: its peaks, and what each phase has reserved there."""
    phases = ", ".join(
        f"{phase.name} {format_size(one.peak_reserved_bytes)}"
        for phase in measured.phases
        for one in phase.vram
        if one.device == vram.device
    )
    return f"{vram_words(vram)}: {phases}"


def _broken(measured: Measured) -> Verdict | None:
    return next((verdict for verdict in measured.verdicts if not verdict.held), None)
