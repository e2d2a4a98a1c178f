"""What the tests of diagnoses share: symptoms in a word, and what every answer must be like."""

from pytest_llmmem.core.endings import Ending, Evidence, Exit, exit_from_returncode, judge_ending
from pytest_llmmem.core.stacks import Frame
from pytest_llmmem.diagnosis import Diagnosis, Facts, diagnose

MB, GB = 10**6, 10**9
_SIGNALS = {6: "SIGABRT", 7: "SIGBUS", 9: "SIGKILL", 11: "SIGSEGV"}
RAISED = Ending(kind="raised")
COMPLETED = Ending(kind="completed")


def failed(error_type: str, error_text: str, *, inside: str | None = None) -> Facts:
    stack = (Frame(inside, "1", inside),) if inside else ()
    return Facts(ending=RAISED, error_type=error_type, error_text=error_text, stack=stack)


def died(returncode: int, *stack: Frame, evidence: Evidence | None = None, **facts: object) -> Facts:
    """A worker that the operating system says has ended so."""
    ending = judge_ending(
        _exit(returncode), finished=False, phase="call", stopped=None, evidence=evidence or Evidence()
    )
    return Facts(ending=ending, stack=stack, **facts)  # type: ignore[arg-type]


def _exit(returncode: int) -> Exit:
    """Of either platform, on each: ``signal`` knows the names of its own platform alone."""
    name = _SIGNALS.get(-returncode)
    return Exit(signal=name, signal_number=-returncode) if name else exit_from_returncode(returncode)


def id_of(facts: Facts) -> str | None:
    found = diagnose(facts)
    return found.id if found else None


def assert_readable(found: Diagnosis) -> None:
    """At most five lines of sentences, none so long that it fills half a screen."""
    lines = found.lines
    assert 3 <= len(lines) <= 5
    assert [line for line in lines if not line.endswith(".") or "\n" in line or len(line) > 200] == []
