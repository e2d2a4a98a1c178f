"""Budgets: a limit with its rules, and the verdict on what was used."""

from dataclasses import dataclass, replace
from typing import Literal

from pytest_llmmem.core.limits import Limit
from pytest_llmmem.core.sizes import format_beside, is_size, unit_of

Count = Literal["unreclaimable", "resident", "written", "reserved", "allocated", "device"]
OnBreach = Literal["finish", "stop"]
Enforce = Literal["watch", "rlimit", "cgroup", "job", "cap"]


def counted(count: str) -> str:
    """The word after a size that names its counting method."""
    return "by the driver" if count == "device" else count


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit for one test, or for one ``memory_budget`` block."""

    kind: Literal["max_ram", "max_vram", "max_disk", "memory_budget", "keeps", "max_growth"]
    """``keeps``: what a block leaves when it has ended. ``max_growth``: what each call of a test leaves."""
    limit: Limit
    limit_bytes: int
    count: Count = "unreclaimable"
    on_breach: OnBreach = "finish"
    enforce: Enforce = "watch"
    name: str | None = None
    """The block's name; ``None`` for the whole test."""
    device: str | None = None
    """The device of ``max_vram``: ``"cuda:0"``."""
    rank: int | None = None
    """The rank that the budget applies to, for a test in ranks; ``None``: the whole test."""

    def judge(self, actual_bytes: int, error_bytes: int = 0) -> "Verdict":
        """The budget beside what was used, of which ``error_bytes`` may be the error of measuring."""
        return Verdict(
            kind=self.kind,
            limit=self.limit.text,
            limit_bytes=self.limit_bytes,
            actual_bytes=actual_bytes,
            held=actual_bytes - error_bytes <= self.limit_bytes,
            error_bytes=error_bytes,
            name=self.name,
            count=self.count,
            on_breach=self.on_breach,
            device=self.device,
            rank=self.rank,
            sentence=self._sentence(actual_bytes),
        )

    def _sentence(self, actual_bytes: int) -> str:
        """The limit, what was used, and what that is over it or leaves of it: the same on every surface."""
        limit, used, apart = format_beside(self.limit_bytes, actual_bytes, self.limit.unit)
        expression = "" if is_size(self.limit.text) else f" ({self.limit.text})"
        where = f" in {self.name!r}" if self.name else f" on {self.device}" if self.device else ""
        where += "" if self.rank is None else f" in rank {self.rank}"
        match self.kind:
            case "max_disk":
                actual = f"wrote {used}"
            case "keeps":
                actual = f"kept {used}"
            case "max_growth":
                actual = f"grew by {used} a call"
            case _:
                actual = f"used {used} {counted(self.count)}"
        side = "over" if actual_bytes > self.limit_bytes else "left"
        return f"{self.kind} is {limit}{expression}, {actual}{where}: {apart} {side}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A budget beside what was used, in bytes."""

    kind: str
    limit: str
    """The limit as the user wrote it."""
    limit_bytes: int
    actual_bytes: int
    held: bool
    """Whether the use is within the limit, or above it by no more than the error of measuring; and no more was refused."""
    error_bytes: int = 0
    """Highest possible excess of ``actual_bytes``. A budget counts as held if this error may explain the breach."""
    name: str | None = None
    """The block's; ``None`` for the whole test."""
    count: str = "unreclaimable"
    on_breach: OnBreach = "finish"
    device: str | None = None
    """The device of ``max_vram``: ``"cuda:0"``."""
    rank: int | None = None
    """The rank that it is the budget of; ``None`` for the whole test."""
    sentence: str = ""
    """Limit, use and difference; empty in reports of other versions."""

    @property
    def certain_bytes(self) -> int:
        return self.actual_bytes - self.error_bytes

    @property
    def is_uncertain(self) -> bool:
        """Whether it held only because it may be the error."""
        return self.held and self.actual_bytes > self.limit_bytes

    def refused(self, by: str) -> "Verdict":
        """The same budget, broken because its hard limit refused the test more memory."""
        return replace(self, held=False, sentence=f"{self.sentence}; enforce={by!r} refused more")

    @property
    def unit(self) -> str | None:
        """The unit to report in, as the user wrote it."""
        return unit_of(self.limit)
