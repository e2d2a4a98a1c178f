"""The memory of children is told with the commands that they run, in a form that a reader knows."""

import pytest

from pytest_llmmem.core.children import ChildrenRecord, children_record, command_words

MB = 10**6
SPAWNED = (
    "/usr/bin/python3",
    "-c",
    "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5, pipe_handle=7)",
    "--multiprocessing-fork",
)
TRACKER = ("/usr/bin/python3", "-s", "-c", "from multiprocessing.resource_tracker import main;main(5)")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (SPAWNED, "python3 -c … spawn_main"),
        (TRACKER, "python3 -c … resource_tracker"),
        (("/usr/bin/git", "status"), "git status"),
        (("python", "-c", "print(1)"), "python -c print(1)"),
        (("python", "-c"), "python -c"),
    ],
)
def test_a_command_has_a_short_form(command: tuple[str, ...], expected: str) -> None:
    assert command_words(command) == expected


def test_a_long_command_is_cut() -> None:
    assert len(command_words(("python", "-m", "train", "--data", "x" * 100))) == 60


def test_children_without_a_program_of_their_own_are_forked() -> None:
    worker = ("/usr/bin/python3", "-m", "pytest")

    record = children_record([TRACKER, worker, worker], of_worker=worker, size=104 * MB)

    assert record == ChildrenRecord(
        bytes=104 * MB, count=3, forked=2, commands=("forked from the test", "python3 -c … resource_tracker")
    )
    assert record.words() == "of it 104 MB in 3 children: forked from the test, `python3 -c … resource_tracker`"


def test_children_of_another_moment_than_the_peak_are_no_part_of_it() -> None:
    record = ChildrenRecord(bytes=MB, count=1, commands=("git status",), in_peak=False)

    assert record.words() == "beside it, at another moment, 1.00 MB in 1 child: `git status`"


def test_children_that_hold_little_are_not_told() -> None:
    little, enough = (ChildrenRecord(bytes=size, count=1, commands=()) for size in (MB // 10, 50 * MB))

    assert (little.is_told, enough.is_told) == (False, True)
