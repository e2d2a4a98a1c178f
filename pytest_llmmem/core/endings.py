"""Endings of a worker, and the causes that the evidence supports."""

import dataclasses
import signal
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from pytest_llmmem.core.readings import LifetimeMarks

EndingKind = Literal["completed", "raised", "over_budget", "out_of_memory", "crashed", "exited", "timed_out", "ended"]
"""``ended`` is said of a rank alone: by us, because another one had failed."""
PhaseName = Literal["setup", "call", "teardown"]
PHASES: Final[dict[str, PhaseName]] = {"setup": "setup", "call": "call", "teardown": "teardown"}
"""The phases of a test, among the windows of a job."""
StopReason = Literal["over_budget", "low_memory", "timed_out", "other_rank"]

NTSTATUS: Final = {
    0x80000003: "BREAKPOINT",
    0xC0000005: "ACCESS_VIOLATION",
    0xC0000006: "IN_PAGE_ERROR",
    0xC0000017: "NO_MEMORY",
    0xC000001D: "ILLEGAL_INSTRUCTION",
    0xC0000044: "QUOTA_EXCEEDED",
    0xC000008E: "FLOAT_DIVIDE_BY_ZERO",
    0xC0000094: "INTEGER_DIVIDE_BY_ZERO",
    0xC00000FD: "STACK_OVERFLOW",
    0xC000012D: "COMMITMENT_LIMIT",
    0xC0000135: "DLL_NOT_FOUND",
    0xC0000139: "ENTRYPOINT_NOT_FOUND",
    0xC000013A: "CONTROL_C_EXIT",
    0xC0000142: "DLL_INIT_FAILED",
    0xC0000374: "HEAP_CORRUPTION",
    0xC0000409: "FAIL_FAST",
    0xE06D7363: "UNCAUGHT_CXX_EXCEPTION",
}
"""Windows exit statuses that mean a crash (ntstatus.h), by their unsigned 32-bit value."""


_ABORTED: Final = 3
"""The exit code by which Windows' C runtime ends an abort that a handler has heard of, as ``sys.exit(3)`` does."""
_ABORT_DUMP: Final = "Fatal Python error: Aborted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """Exit status of a process from the operating system: exactly one of code and signal."""

    code: int | None = None
    signal: str | None = None
    """``"SIGSEGV"``, or the NTSTATUS by name on Windows."""
    signal_number: int | None = None
    peak_resident_bytes: int | None = None
    """The kernel's high-water mark at death, since its last reset; ``None`` where the platform does not keep it."""
    lifetime: LifetimeMarks | None = None
    """The high-water marks at death that are never reset; ``None`` on Linux."""
    may_be_killed: bool = False
    """Whether another process may have set the code by ending this one: Windows knows no signal that would tell."""

    def __post_init__(self) -> None:
        if (self.code is None) == (self.signal is None):
            msg = f"an exit has a code or a signal, not {self.code!r} and {self.signal!r}"
            raise ValueError(msg)

    @property
    def how(self) -> str:
        """The exit status in words: ``"SIGSEGV"``, ``"exit code 1"``."""
        return self.signal or f"exit code {self.code}"


def exit_from_wait_status(status: int, peak_resident_bytes: int | None = None) -> Exit:
    """Decode what ``wait4`` returned on a POSIX system."""
    number = status & 0x7F
    if number:
        return Exit(signal=signal_name(number), signal_number=number, peak_resident_bytes=peak_resident_bytes)
    return Exit(code=(status >> 8) & 0xFF, peak_resident_bytes=peak_resident_bytes)


def exit_from_returncode(returncode: int) -> Exit:
    """Decode ``subprocess``'s return code: negative signals on POSIX, NTSTATUS in 32 bits on Windows, signed or not."""
    unsigned = returncode & 0xFFFFFFFF
    if unsigned in NTSTATUS:
        return Exit(signal=f"{NTSTATUS[unsigned]} (0x{unsigned:08X})", signal_number=unsigned)
    if -65 < returncode < 0:
        return Exit(signal=signal_name(-returncode), signal_number=-returncode)
    if unsigned >= 0xC0000000:
        return Exit(signal=f"NTSTATUS 0x{unsigned:08X}", signal_number=unsigned)
    return Exit(code=returncode)


def exit_on_windows(code: int, dumps: str, lifetime: LifetimeMarks | None = None) -> Exit:
    """Decode a Windows exit code, beside what faulthandler has written: it tells an abort from ``sys.exit(3)``."""
    if code == _ABORTED and _ABORT_DUMP in dumps:
        return Exit(signal="abort (code 3)", signal_number=code, lifetime=lifetime)
    exit_ = exit_from_returncode(code)
    return dataclasses.replace(exit_, lifetime=lifetime, may_be_killed=exit_.signal is None)


def signal_name(number: int) -> str:
    """``"SIGSEGV"``; a number that has no name is given as it is."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Evidence about a death, beyond the exit status."""

    oom_kills_in_group: int = 0
    """OOM kills counted by the cgroup that enforces the worker's budget while the test ran."""
    oom_kills_on_host: int = 0
    """OOM kills counted by ``/proc/vmstat`` while the test ran: the whole machine's."""
    oom_kills_readable: bool = False
    """Whether either counter could be read at all."""
    ended_with: str | None = None
    """The signal that ended the process which had started the worker, and the worker with it; ``None`` while it lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The ending of a test's worker, and the sentence that reports it."""

    kind: EndingKind
    signal: str | None = None
    exit_code: int | None = None
    phase: PhaseName | None = None
    """The phase that was running; ``None`` when all were done."""
    note: str = ""
    """One sentence of detail, or nothing."""
    error: str | None = None
    """The exception that ended the test, ``"ValueError: ..."``, its first line."""
    place: str | None = None
    """Position in a load: ``"shard 2 of 6, model.layers.11.mlp.down_proj.weight"``."""
    rank: int | None = None
    """The rank that ended so; ``None`` where the test ran in one worker."""

    @property
    def died(self) -> bool:
        """Whether the worker is gone before its last word."""
        return self.kind not in {"completed", "raised"}


def judge_ending(
    exit_: Exit | None,
    *,
    finished: bool,
    phase: PhaseName | None,
    stopped: StopReason | None,
    evidence: Evidence,
    timeout_s: float | None = None,
    foreign_bytes: str = "",
) -> Ending:
    """Name an ending from the worker's last word, our own record, its exit status and the kernel's counters.

    ``finished`` is whether the worker said that the test was done; a worker that did not has died, whatever its exit
    code. ``exit_`` is ``None`` while the process lives on (a group's worker between two tests). ``foreign_bytes`` is what is
    wrong with what came instead of its words.
    """
    if finished:
        return Ending(kind="completed")
    if stopped is not None:
        return _stopped(stopped, phase, timeout_s)
    if foreign_bytes:
        return Ending(kind="exited", phase=phase, note=_FOREIGN_BYTES.format(foreign_bytes))
    if exit_ is None:
        return Ending(kind="exited", phase=phase, note="it closed its channel and lives on")
    if exit_.signal is None:
        return Ending(
            kind="exited", phase=phase, exit_code=exit_.code, note=_EXITED_OR_KILLED if exit_.may_be_killed else _EXITED
        )
    if exit_.signal == "SIGKILL":
        return _killed(phase, evidence)
    return Ending(kind="crashed", phase=phase, signal=exit_.signal)


def _stopped(reason: StopReason, phase: PhaseName | None, timeout_s: float | None) -> Ending:
    match reason:
        case "timed_out":
            return Ending(kind=reason, phase=phase, note="" if timeout_s is None else f"its limit is {timeout_s:g} s")
        case "other_rank":
            return Ending(kind="ended", phase=phase, note="another rank had failed")
        case "low_memory":
            return Ending(kind="over_budget", phase=phase, note="stopped before the machine ran out of memory")
        case "over_budget":
            return Ending(kind=reason, phase=phase)
        case never:
            assert_never(never)


_FOREIGN_BYTES: Final = (
    "it wrote to the descriptor by which its worker reports ({}), and was ended: "
    "write only to descriptors that the test has opened"
)
_EXITED: Final = "it left without a report: os._exit, or a native library that ends the process"
_EXITED_OR_KILLED: Final = f"{_EXITED}, or another process ended it: Windows does not tell"


def _killed(phase: PhaseName | None, evidence: Evidence) -> Ending:
    if evidence.oom_kills_in_group:
        note = f"the kernel's OOM killer ended it (oom_kill +{evidence.oom_kills_in_group} in its own memory cgroup)"
        return Ending(kind="over_budget", phase=phase, signal="SIGKILL", note=note)
    if evidence.oom_kills_on_host:
        note = f"the kernel's OOM killer was at work (oom_kill +{evidence.oom_kills_on_host} in /proc/vmstat)"
        return Ending(kind="out_of_memory", phase=phase, signal="SIGKILL", note=note)
    if evidence.ended_with:
        note = f"the process that workers are started from was ended by {evidence.ended_with}, and this worker with it"
    elif evidence.oom_kills_readable:
        note = "not by us, and the kernel counted no OOM kill: the test sent it, or another process"
    else:
        note = "not by us; an OOM kill can be neither shown nor ruled out here"
    return Ending(kind="crashed", phase=phase, signal="SIGKILL", note=note)
