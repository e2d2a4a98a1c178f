"""The driver, on an engine that does what a test has written down."""

from collections.abc import Callable, Sequence

import pytest

from pytest_llmmem.sweep.driver import Ended, Finished, Lost, Missing, State, run
from pytest_llmmem.sweep.jobs import Job
from pytest_llmmem.sweep.placement import Node
from tests.sweep.jobs import MB, job

NODES = (
    Node(id="1", name="small", memory_bytes=300 * MB, cpus=4),
    Node(id="2", name="large", memory_bytes=1000 * MB, cpus=4),
)


class Scripted:
    """An engine in memory: ``ends`` says how a job ends on a node, given how often it was started."""

    def __init__(self, ends: Callable[[Job, Node, int], Finished | Lost], nodes: Sequence[Node] = NODES) -> None:
        self.there = list(nodes)
        self.started: list[tuple[str, str, int]] = []
        self._ends = ends
        self._running: list[tuple[Job, Node]] = []

    def nodes(self) -> Sequence[Node]:
        return self.there

    def start(self, job: Job, node: Node) -> None:
        self.started.append((job.name, node.name, job.memory_bytes // MB))
        self._running.append((job, node))

    def wait(self, timeout_s: float) -> Sequence[Finished | Lost]:
        job, node = self._running.pop(0)
        return [self._ends(job, node, sum(name == job.name for name, _, _ in self.started))]

    def close(self) -> None:
        """Nothing runs."""


def fine(job: Job, node: Node, times: int) -> Finished:
    return Finished(job=job, result={"node": node.name, "times": times})


def ended(jobs: Sequence[Job], engine: Scripted) -> dict[str, Ended]:
    return {each.job.name: each for each in run(jobs, engine)}


def test_each_job_has_one_result_the_largest_first() -> None:
    engine = Scripted(fine)

    results = ended([job("a"), job("c", memory_bytes=900 * MB), job("b")], engine)

    assert [each.result for each in results.values()] == [
        {"node": "large", "times": 1},
        *[{"node": "small", "times": 1}] * 2,
    ]
    assert engine.started[0] == ("c", "large", 900)


def test_a_job_that_was_lost_goes_on_elsewhere() -> None:
    def loses_the_first(job: Job, node: Node, times: int) -> Finished | Lost:
        if times > 1:
            return fine(job, node, times)
        engine.there = [each for each in NODES if each != node]
        return Lost(job=job, why="NodeDiedError")

    engine = Scripted(loses_the_first)

    (one,) = ended([job("a")], engine).values()

    assert (one.tries, one.node, one.result) == (2, "small", {"node": "small", "times": 2})


def test_a_job_that_is_always_lost_is_given_up_with_the_reason() -> None:
    engine = Scripted(lambda job, node, times: Lost(job=job, why="WorkerCrashedError: gone"))

    (one,) = ended([job("a")], engine).values()

    assert one.result == Missing(why="lost 5 times, at last on large: WorkerCrashedError: gone")
    assert len(engine.started) == 5


def test_a_job_that_a_node_ran_out_of_memory_with_claims_more() -> None:
    def too_much(job: Job, node: Node, times: int) -> Finished | Lost:
        return fine(job, node, times) if times == 3 else Lost(job=job, why="OutOfMemoryError", needs_more_memory=True)

    engine = Scripted(too_much)
    asked = job("a", memory_bytes=200 * MB)

    (one,) = ended([asked], engine).values()

    assert [claimed for _, _, claimed in engine.started] == [200, 300, 450]
    assert one.job == asked


def test_what_fits_nowhere_is_said_at_the_end_unless_a_node_has_come_meanwhile() -> None:
    def brings_a_node(job: Job, node: Node, times: int) -> Finished:
        engine.there = [*NODES, Node(id="3", name="new", memory_bytes=3000 * MB, cpus=4)]
        return fine(job, node, times)

    engine = Scripted(brings_a_node)

    results = ended([job("a"), job("wide", memory_bytes=2000 * MB), job("wider", memory_bytes=4000 * MB)], engine)

    assert results["wide"].node == "new"
    assert results["wider"].result == Missing(
        why="fits no node: it needs 4.00 GB, 1 CPUs, and the largest node, new, has 3.00 GB, 4 CPUs"
    )


def test_a_watcher_sees_what_runs_where() -> None:
    seen: list[tuple[int, int]] = []

    def watch(state: State) -> None:
        seen.append((len(state.running), len(state.waiting)))

    list(run([job(name, memory_bytes=900 * MB) for name in "ab"], Scripted(fine), watch=watch))

    assert seen[0] == (1, 1)
    assert seen[-1] == (0, 0)


@pytest.mark.parametrize("count", [0, 1])
def test_few_jobs_are_no_special_case(count: int) -> None:
    assert len(ended([job(str(number)) for number in range(count)], Scripted(fine))) == count
