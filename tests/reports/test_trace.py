"""The trace, read as its viewers read it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pytest_llmmem.core.record_parts import Phase, TimelineRecord
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.reports.trace import render
from tests.conftest import Run
from tests.reports.records import hostile, large, sample, steps


def events(*tests: TestRecord) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(render(SessionRecord(environment={}, tests=tests)))["traceEvents"]
    return found


def counters(found: list[dict[str, Any]], name: str) -> list[tuple[int, dict[str, int]]]:
    return [(event["ts"], event["args"]) for event in found if event["ph"] == "C" and event["name"] == name]


def level() -> TestRecord:
    """0, then 5 for a while, then 7."""
    line = TimelineRecord(
        seconds=(0.0, 0.5, 1.0, 1.5, 2.0), unreclaimable_bytes=(0, 5, 5, 5, 7), file_bytes=(0, 1, 1, 1, 1)
    )
    return replace(sample().tests[0], timeline=line)


def test_a_counter_tells_each_change_once_and_ends_at_nothing() -> None:
    assert counters(events(level()), "RAM") == [
        (0, {"unreclaimable": 0, "file": 0}),
        (500_000, {"unreclaimable": 5, "file": 1}),
        (2_000_000, {"unreclaimable": 7, "file": 1}),
        (2_000_000, {"unreclaimable": 0, "file": 0}),
    ]


def test_vram_is_a_counter_where_it_was_read() -> None:
    with_vram = next(test for test in sample().tests if test.vram)

    assert max(args["bytes"] for _, args in counters(events(with_vram), "VRAM")) > 3 * 10**9
    assert counters(events(level()), "VRAM") == []


def test_a_budget_of_the_whole_test_is_a_line_and_a_blocks_is_not() -> None:
    whole, block = (
        sample().tests[1],
        next(test for test in sample().tests if any(budget.name for budget in test.budgets)),
    )

    limit = {"max_ram 1.2 * weights + 200MB": 3_396_000_000}
    assert limit in [args for _, args in counters(events(whole), "RAM budget")]
    assert counters(events(block), "RAM budget") == []


def test_the_tensors_of_a_step_are_a_counter_by_kind_in_the_span_of_their_phase() -> None:
    memory = steps()
    spans = tuple(
        Phase(name=f"{each.phase} {each.step}", peak_bytes=0, seconds=0.5, started_s=1 + number / 2)
        for number, each in enumerate(memory.phases)
    )
    found = events(replace(level(), steps=(memory,), phases=spans))

    counted = counters(found, "train_step")
    assert counted == counters(found, "train_step predicted")
    assert [when for when, _ in counted] == [
        1_000_000,
        1_500_000,
        2_000_000,
        2_500_000,
        3_000_000,
        3_500_000,
        4_000_000,
    ]
    assert [sum(args.values()) for _, args in counted] == [*(each.peak_bytes for each in memory.phases), 0]
    assert list(counted[0][1]) == ["parameters", "gradients", "optimizer", "activations", "temporary"]


def test_a_prediction_alone_has_a_second_for_each_phase() -> None:
    found = events(replace(level(), steps=(steps(predicted=False),), phases=()))

    assert [when for when, _ in counters(found, "train_step")] == [number * 1_000_000 for number in range(7)]


def test_phases_are_spans_and_marks_are_moments_with_the_stack() -> None:
    test = sample().tests[1]

    found = events(test)

    spans = [(event["name"], event["ts"], event["dur"]) for event in found if event["ph"] == "X"]
    (breach,) = (event for event in found if event["ph"] == "i")
    assert spans == [
        ("setup", 10_000, 330_000),
        ("load", 40_000, 300_000),
        ("call", 340_000, 5_800_000),
        ("teardown", 6_150_000, 400_000),
    ]
    assert (breach["name"], breach["ts"]) == ("breach", 4_110_000)
    assert breach["args"]["stack"].splitlines() == ["Stack at the crossing, yours first", *test.stack]


def test_spans_follow_or_enclose_each_other(run: Callable[..., Run]) -> None:
    """Perfetto drops a span that begins before another of its thread has ended, and ends after it."""
    source = """
        import pytest
        @pytest.mark.in_worker
        def test_it(memory_budget):
            with memory_budget(name="outer"), memory_budget(name="inner"): pass
    """
    real = run(source).record.tests[0]
    phases = (
        replace(real.phases[0], started_s=6e-7, seconds=8e-7),
        replace(real.phases[1], started_s=1.4e-6, seconds=1),
    )

    for test in (real, replace(real, phases=phases)):
        assert_nested([event for event in events(test) if event["ph"] == "X"])
    assert [phase.name for phase in real.phases] == ["setup", "call", "outer", "inner", "teardown"]


def assert_nested(spans: list[dict[str, Any]]) -> None:
    ends: list[int] = []
    for start, end in ((span["ts"], span["ts"] + span["dur"]) for span in spans):
        ends = [other for other in ends if other > start]
        assert all(end <= other for other in ends)
        ends.append(end)


def test_each_test_is_a_process_with_its_name() -> None:
    found = events(*sample().tests)

    names = {event["pid"]: event["args"]["name"] for event in found if event["name"] == "process_name"}
    assert sorted(names.values()) == sorted(test.nodeid for test in sample().tests)
    assert {event["pid"] for event in found} == set(names)


def test_every_event_has_what_the_format_asks_for() -> None:
    for event in events(*large(tests=9, points=100).tests, *hostile().tests):
        assert {"ph", "name", "pid", "args"} <= event.keys()
        if event["ph"] != "M":
            assert isinstance(event["ts"], int)
        if event["ph"] == "C":
            assert all(isinstance(value, int) for value in event["args"].values())


def test_a_session_without_tests_is_a_trace_without_events() -> None:
    assert events() == []
