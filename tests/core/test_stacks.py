"""The stack that is shown is the right thread's, and begins with the user's frames."""

from pytest_llmmem.core.stacks import parse_stack, users_first

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
    assert [frame.function for frame in parse_stack(DUMP)] == ["linear", "test_load"]


def test_the_thread_at_fault_is_chosen_in_a_crash() -> None:
    crash = "Fatal Python error: Segmentation fault\n\n" + DUMP.replace("Thread 0x1", "Current thread 0x1")

    assert [frame.function for frame in parse_stack(crash)] == ["serve"]


def test_the_users_frames_come_first_and_libraries_are_named_without_their_place() -> None:
    assert [frame.shown("/home/me/repo") for frame in users_first(parse_stack(DUMP))] == [
        "tests/test_x.py:12 in test_load",
        "torch/nn/functional.py:9 in linear",
    ]


def test_a_dump_that_is_cut_or_empty_gives_what_there_is() -> None:
    assert parse_stack("") == ()
    assert len(parse_stack(DUMP[:150])) <= 1
