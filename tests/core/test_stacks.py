"""The stack that is shown is the right thread's, and begins with the user's frames."""

import inspect
from pathlib import Path

import pytest

from pytest_llmmem.core.stacks import (
    Frame,
    Stack,
    elided,
    has_both_ends,
    parse_stack,
    rest_of_stack,
    stack_heading,
    stack_text,
    without_handled,
)

DUMP = """\
Thread 0x1 (most recent call first):
  File "/home/me/repo/server.py", line 5 in serve

Thread 0x2 (most recent call first):
  File "/venv/lib/python3.11/site-packages/torch/nn/functional.py", line 9 in linear
  File "/home/me/repo/tests/test_x.py", line 12 in test_load
  File "/venv/lib/python3.11/site-packages/_pytest/python.py", line 1 in runtest
  File "/venv/lib/python3.11/site-packages/execnet/gateway_base.py", line 2 in executetask
  File "<string>", line 8 in <module>
"""


def test_the_thread_that_pytest_runs_the_test_in_is_chosen() -> None:
    assert [frame.function for frame in parse_stack(DUMP).frames] == ["linear", "test_load"]


def test_the_thread_at_fault_is_chosen_in_a_crash() -> None:
    crash = "Fatal Python error: Segmentation fault\n\n" + DUMP.replace("Thread 0x1", "Current thread 0x1")

    assert [frame.function for frame in parse_stack(crash).frames] == ["serve"]


def test_in_a_process_that_was_ended_from_outside_the_thread_that_got_the_signal_is_not_at_fault() -> None:
    ended = DUMP.replace("Thread 0x1", "Current thread 0x1")

    assert [frame.function for frame in parse_stack(ended, crashed=False).frames] == ["linear", "test_load"]


def test_the_users_frames_come_first_and_libraries_are_named_without_their_place() -> None:
    assert [frame.shown("/home/me/repo") for frame in parse_stack(DUMP).users_first] == [
        f"{Path('tests/test_x.py')}:12 in test_load",
        f"{Path('torch/nn/functional.py')}:9 in linear",
    ]


def test_a_dump_that_is_cut_or_empty_gives_what_there_is() -> None:
    assert parse_stack("") == Stack()
    assert len(parse_stack(DUMP[:150]).frames) <= 1


# -- stacks that are deeper than faulthandler writes

INNER = "".join(f'  File "/home/me/repo/deep.py", line {line} in deeper\n' for line in range(100))
CROSSING = f"Stack (most recent call first):\n{INNER}  ...\n"
DEATH = f"Thread 0x2 (most recent call first):\n{INNER.replace('deeper', 'dying')}  ...\n"


def rest_from(depth: int) -> str:
    return rest_of_stack(inspect.currentframe()) if depth == 0 else rest_from(depth - 1)


def test_the_rest_of_a_stack_begins_where_the_dump_ends_and_keeps_its_outer_end() -> None:
    for depth in (150, 300):
        rest = rest_from(depth)
        whole = [frame.function for frame in inspect.stack()]
        found = parse_stack(CROSSING + rest, at="the crossing")
        assert found.cut is not None
        # rest_from itself, its own frame and those below it, less those of pytest
        assert 100 + found.cut + rest.count("  File ") == depth + 1 + len(whole)
        assert found.users[-1].function == "test_the_rest_of_a_stack_begins_where_the_dump_ends_and_keeps_its_outer_end"


def test_a_stack_that_has_grown_short_meanwhile_has_no_rest() -> None:
    assert parse_stack(CROSSING + rest_from(0), at="the crossing").cut is None


def test_what_is_cut_is_known_or_said_to_be_unknown() -> None:
    whole, cut = CROSSING.replace("line 99 in", "99"), CROSSING
    outer = 'Outer end behind 57 frames (most recent call first):\n  File "/home/me/repo/test_x.py", line 3 in test_x\n'

    assert (has_both_ends(cut), has_both_ends(cut + rest_from(0)), has_both_ends(cut + outer)) == (False, True, True)
    assert parse_stack(whole, at="the crossing").cut == 0
    assert parse_stack(cut, at="the crossing").cut is None
    both = parse_stack(cut + outer, at="the crossing")
    assert (both.cut, both.frames[-1]) == (57, Frame("/home/me/repo/test_x.py", "3", "test_x"))
    assert parse_stack(DEATH, at="the end").cut is None
    assert parse_stack(cut.replace("  ...\n", "") + outer, at="the crossing") == both  # as Python 3.13 writes it


def test_a_crossing_and_a_death_are_told_apart() -> None:
    dump = CROSSING + DEATH

    assert {frame.function for frame in parse_stack(dump, at="the crossing").frames} == {"deeper"}
    assert {frame.function for frame in parse_stack(dump, at="the end").frames} == {"dying"}
    assert parse_stack(DEATH, at="the crossing").frames == ()
    assert {frame.function for frame in parse_stack(CROSSING, at="the end").frames} == {"deeper"}


@pytest.mark.parametrize(
    ("cut", "heading"),
    [
        (0, "at the end, yours first"),
        (57, "at the end, yours first; 57 frames in the middle are cut"),
        (None, "at the end, yours first; the outer end is cut"),
    ],
)
def test_a_heading_says_what_is_missing(cut: int | None, heading: str) -> None:
    assert stack_heading("the end", cut) == heading


def test_both_ends_of_the_users_part_are_shown() -> None:
    own, others = [f"test_x.py:{n}" for n in range(20)], [f"torch.py:{n}" for n in range(5)]

    assert elided(own[:3] + others, 3, most=8) == own[:3] + others
    assert elided(own[:6] + others, 6, most=8) == [*own[:6], *others[:2], "and 3 more"]
    assert elided(own + others, 20, most=8) == [*own[:6], "… 12 more of yours", *own[18:], "and 5 more"]
    assert elided(own, 20, most=8)[-1] == own[-1]


# -- Windows: faulthandler writes a stack for each exception that is raised, though it be handled

ACCESS_VIOLATION = 0xC0000005
BREAKPOINT = 0x80000003


def raised(exception: str, function: str, header: str = "Current thread 0x1") -> str:
    return (
        f"Windows fatal exception: {exception}\n\n{header} (most recent call first):\n"
        f'  File "C:\\repo\\tests\\test_x.py", line 1 in {function}\n'
    )


@pytest.mark.parametrize(
    ("dump", "died_of", "functions"),
    [
        (raised("access violation", "handled"), 3, []),
        (raised("access violation", "handled") + raised("stack overflow", "fatal"), 0xC00000FD, ["fatal"]),
        (raised("access violation", "handled") + raised("access violation", "fatal"), ACCESS_VIOLATION, ["fatal"]),
        (raised("code 0xc0000374", "fatal"), 0xC0000374, ["fatal"]),
        (raised("access violation", "handled") + raised("code 0x80000003", "ours", "Thread 0x1"), BREAKPOINT, ["ours"]),
        (raised("code 0x80000003", "ours", "Thread 0x1"), 0x20004B49, ["ours"]),
        (raised("a new kind", "unknown"), None, []),
    ],
)
def test_only_the_exception_that_ended_the_process_has_a_stack(
    dump: str, died_of: int | None, functions: list[str]
) -> None:
    assert [frame.function for frame in parse_stack(without_handled(dump, died_of)).frames] == functions


def test_what_was_written_after_a_handled_exception_stays() -> None:
    abort = raised("", "aborting").replace("Windows fatal exception: ", "Fatal Python error: Aborted")

    dump = without_handled(raised("access violation", "handled") + abort, 3)

    assert [frame.function for frame in parse_stack(dump).frames] == ["aborting"]


def test_a_dump_without_such_exceptions_is_left_as_it_is() -> None:
    assert without_handled(DUMP, None) == DUMP


def test_a_stack_that_python_writes_reads_as_faulthandlers_does() -> None:
    text = stack_text(inspect.currentframe())

    assert has_both_ends(text)
    assert (
        parse_stack(text, at="the crossing").frames[0].function
        == "test_a_stack_that_python_writes_reads_as_faulthandlers_does"
    )


@pytest.mark.parametrize(
    ("file", "is_machinery", "is_users"),
    [
        (r"C:\venv\Lib\site-packages\_pytest\python.py", True, False),
        (r"C:\venv\Lib\site-packages\torch\nn\functional.py", False, False),
        (r"C:\Python313\Lib\threading.py", False, False),
        (r"C:\repo\tests\test_x.py", False, True),
        (r"C:\repo\lib\helpers.py", False, True),
    ],
)
def test_frames_of_windows_are_told_apart(file: str, is_machinery: bool, is_users: bool) -> None:
    frame = Frame(file, "1", "f")

    assert (frame.is_machinery, frame.is_users) == (is_machinery, is_users)
