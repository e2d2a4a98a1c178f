"""Which job starts where."""

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.sweep.placement import Node, fits_nowhere, place, rooms
from tests.sweep.jobs import MB, job


def node(name: str, memory: int = 1000, cpus: float = 4) -> Node:
    return Node(id=name, name=name, memory_bytes=memory * MB, cpus=cpus)


def test_a_node_is_not_promised_more_than_it_has() -> None:
    nodes = [node("small", 250), node("large", 1000)]
    running = [(job("cells/0", memory_bytes=800 * MB), nodes[1])]
    waiting = [job(f"cells/{number}", memory_bytes=200 * MB) for number in (1, 2, 3)]

    placed, left = place(waiting, rooms(nodes, running), {})

    assert {each.name: where.name for each, where in placed} == {"cells/1": "small", "cells/2": "large"}
    assert [each.name for each in left] == ["cells/3"]


def test_the_node_that_has_the_model_is_preferred_while_it_has_room() -> None:
    nodes = [node("near", 300), node("far", 1000)]
    waiting = [job(f"cells/{number}", memory_bytes=200 * MB, model="llama") for number in (1, 2)]

    placed, _ = place(waiting, rooms(nodes, ()), {"llama": frozenset({"near"})})

    assert [where.name for _, where in placed] == ["near", "far"]


def test_a_smaller_job_goes_before_one_that_has_to_wait() -> None:
    waiting = [job("cells/large", memory_bytes=2000 * MB), job("cells/small")]

    placed, left = place(waiting, rooms([node("only")], ()), {})

    assert [each.name for each, _ in placed] == ["cells/small"]
    assert [each.name for each in left] == ["cells/large"]


def test_a_job_fits_nowhere_when_no_empty_node_could_run_it() -> None:
    nodes = [node("wide", 4000, cpus=1), node("busy", 500)]

    assert fits_nowhere(job(memory_bytes=1000 * MB, cpus=2), nodes)
    assert not fits_nowhere(job(memory_bytes=1000 * MB, cpus=1), nodes)
    assert fits_nowhere(job(gpus=1), nodes)


@given(
    nodes=st.lists(st.tuples(st.integers(0, 3000), st.sampled_from([1, 2, 8])), max_size=4),
    jobs=st.lists(st.tuples(st.integers(1, 2000), st.sampled_from([0.5, 1, 2])), max_size=20),
)
def test_no_node_ever_holds_more_than_its_own(nodes: list[tuple[int, float]], jobs: list[tuple[int, float]]) -> None:
    there = [node(str(number), memory, cpus) for number, (memory, cpus) in enumerate(nodes)]
    waiting = [
        job(f"cells/{number}", memory_bytes=memory * MB, cpus=cpus) for number, (memory, cpus) in enumerate(jobs)
    ]

    placed, left = place(waiting, rooms(there, ()), {})

    for each in there:
        here = [started for started, where in placed if where == each]
        assert sum(started.memory_bytes for started in here) <= each.memory_bytes
        assert sum(started.cpus for started in here) <= each.cpus
    assert sorted([*(started.name for started, _ in placed), *(each.name for each in left)]) == sorted(
        each.name for each in waiting
    )
    assert not any(room.fits(each) for each in left for room in rooms(there, placed).values())
