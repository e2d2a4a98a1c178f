"""Exit statuses are decoded on every platform, and no cause is claimed without evidence."""

import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.endings import (
    NTSTATUS,
    Evidence,
    Exit,
    StopReason,
    exit_from_returncode,
    exit_from_wait_status,
    exit_on_windows,
    judge_ending,
)
from pytest_llmmem.core.readings import LifetimeMarks


@pytest.mark.skipif(not hasattr(os, "WIFSIGNALED"), reason="needs wait statuses")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM"])
def test_a_real_wait_status_names_its_signal(name: str) -> None:
    number = signal.Signals[name]
    pid = os.posix_spawnp("sleep", ["sleep", "60"], os.environ)
    os.kill(pid, number)

    assert exit_from_wait_status(os.waitpid(pid, 0)[1]) == Exit(signal=name, signal_number=number)


@pytest.mark.parametrize(
    ("returncode", "name"),
    [
        (0xC0000005, "ACCESS_VIOLATION (0xC0000005)"),
        (-1073741819, "ACCESS_VIOLATION (0xC0000005)"),
        (0xC00000FD, "STACK_OVERFLOW (0xC00000FD)"),
        (0xC0000409, "FAIL_FAST (0xC0000409)"),
        (0xE06D7363, "UNCAUGHT_CXX_EXCEPTION (0xE06D7363)"),
        (0xC0001234, "NTSTATUS 0xC0001234"),
        (-11, "SIGSEGV"),
        (-41, "signal 41"),
    ],
)
def test_return_codes_of_both_platforms_are_named(returncode: int, name: str) -> None:
    assert exit_from_returncode(returncode).signal == name


@given(st.integers(0, 255))
def test_a_plain_code_stays_a_code(code: int) -> None:
    assert exit_from_returncode(code) == Exit(code=code)
    assert exit_from_wait_status(code << 8) == Exit(code=code)


@given(st.sampled_from(sorted(NTSTATUS)))
def test_signed_and_unsigned_ntstatus_are_the_same_death(status: int) -> None:
    assert exit_from_returncode(status) == exit_from_returncode(status - 2**32)


def test_an_exit_has_a_code_or_a_signal() -> None:
    with pytest.raises(ValueError, match="a code or a signal"):
        Exit()


KILLED = Exit(signal="SIGKILL", signal_number=9)


@pytest.mark.parametrize(
    ("evidence", "kind", "words"),
    [
        (Evidence(oom_kills_in_group=1), "over_budget", "its own memory cgroup"),
        (Evidence(oom_kills_on_host=1, oom_kills_readable=True), "out_of_memory", "/proc/vmstat"),
        (Evidence(oom_kills_readable=True), "crashed", "the test sent it, or another process"),
        (
            Evidence(oom_kills_readable=True, ended_with="SIGTERM"),
            "crashed",
            "was ended by SIGTERM, and this worker with it",
        ),
        (Evidence(), "crashed", "neither shown nor ruled out"),
    ],
)
def test_a_sigkill_is_an_oom_kill_only_where_a_counter_says_so(evidence: Evidence, kind: str, words: str) -> None:
    ending = judge_ending(KILLED, finished=False, phase="call", stopped=None, evidence=evidence)

    assert ending.kind == kind
    assert words in ending.note


def test_our_own_stop_is_never_blamed_on_the_kernel() -> None:
    evidence = Evidence(oom_kills_on_host=3, oom_kills_readable=True)

    ending = judge_ending(KILLED, finished=False, phase="call", stopped="timed_out", evidence=evidence, timeout_s=1.5)

    assert (ending.kind, ending.note) == ("timed_out", "its limit is 1.5 s")


def test_code_zero_without_a_last_word_is_a_death() -> None:
    ending = judge_ending(Exit(code=0), finished=False, phase="call", stopped=None, evidence=Evidence())

    assert (ending.kind, ending.exit_code, ending.died) == ("exited", 0, True)


def test_an_abort_that_faulthandler_heard_of_is_a_crash() -> None:
    exit_ = exit_on_windows(3, "Fatal Python error: Aborted\n\nCurrent thread 0x1 (most recent call first):\n")

    ending = judge_ending(exit_, finished=False, phase="call", stopped=None, evidence=Evidence())

    assert (ending.kind, ending.signal) == ("crashed", "abort (code 3)")


def test_code_3_without_an_abort_is_an_exit_that_anybody_may_have_caused() -> None:
    exit_ = exit_on_windows(3, "")

    ending = judge_ending(exit_, finished=False, phase="call", stopped=None, evidence=Evidence())

    assert (ending.kind, ending.exit_code) == ("exited", 3)
    assert "or another process ended it: Windows does not tell" in ending.note


def test_a_windows_crash_keeps_its_name_and_its_marks() -> None:
    marks = LifetimeMarks(unreclaimable_bytes=7)

    exit_ = exit_on_windows(0xC0000005, "", marks)

    assert (exit_.signal, exit_.lifetime, exit_.may_be_killed) == ("ACCESS_VIOLATION (0xC0000005)", marks, False)


@pytest.mark.parametrize(("exit_", "how"), [(Exit(signal="SIGSEGV"), "SIGSEGV"), (Exit(code=3), "exit code 3")])
def test_an_exit_has_words_for_how_it_came(exit_: Exit, how: str) -> None:
    assert exit_.how == how


@pytest.mark.parametrize(
    ("stopped", "kind", "note"),
    [
        ("over_budget", "over_budget", ""),
        ("low_memory", "over_budget", "stopped before the machine ran out of memory"),
        ("timed_out", "timed_out", ""),
        ("other_rank", "ended", "another rank had failed"),
    ],
)
def test_what_we_stopped_is_named_by_our_reason(stopped: StopReason, kind: str, note: str) -> None:
    ending = judge_ending(KILLED, finished=False, phase="setup", stopped=stopped, evidence=Evidence())

    assert (ending.kind, ending.note, ending.phase) == (kind, note, "setup")


def test_a_test_that_had_its_last_word_completed_however_its_process_ended() -> None:
    assert judge_ending(KILLED, finished=True, phase=None, stopped="timed_out", evidence=Evidence()).kind == "completed"


def test_a_crash_is_named_by_its_signal() -> None:
    ending = judge_ending(Exit(signal="SIGBUS"), finished=False, phase="call", stopped=None, evidence=Evidence())

    assert (ending.kind, ending.signal) == ("crashed", "SIGBUS")


def test_a_process_that_lives_on_without_its_channel_has_ended_for_us() -> None:
    ending = judge_ending(None, finished=False, phase="call", stopped=None, evidence=Evidence())

    assert (ending.kind, ending.note) == ("exited", "it closed its channel and lives on")


def test_bytes_that_are_no_message_are_named_before_the_exit_that_we_caused() -> None:
    ending = judge_ending(
        KILLED, finished=False, phase="call", stopped=None, evidence=Evidence(), foreign_bytes="b'hello'"
    )

    assert ending.kind == "exited"
    assert ending.note.startswith("it wrote to the descriptor by which its worker reports (b'hello'), and was ended")
