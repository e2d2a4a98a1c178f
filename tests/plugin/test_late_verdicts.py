"""Memory that a hard limit refuses is a broken budget, by the same words as a test that was stopped at it."""

from collections.abc import Callable

import pytest

from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.stacks import Frame
from pytest_llmmem.plugin.report.late_verdicts import is_refusal, with_refusal
from pytest_llmmem.plugin.worker.messages import Raised
from tests.conftest import Run, needs

rlimit = needs("prlimit")
MB = 10**6
EAT = """
    import time
    import pytest
    from pytest_llmmem import BudgetExceeded
    pytestmark = pytest.mark.max_ram("200MB", enforce="rlimit")
    def eat():
        pages = []
        while True: pages.append(b"x" * 1_000_000)
"""


def measured(*limits: str, refusing_limit: str | None) -> Measured:
    budgets = [Budget(kind="max_ram", limit=parse_limit(text), limit_bytes=int(text)) for text in limits]
    verdicts = tuple(budget.judge(90 * MB) for budget in budgets)
    return Measured(
        ending=Ending(kind="completed"),
        peak=None,
        phases=(),
        verdicts=verdicts,
        seconds=1.0,
        refusing_limit=refusing_limit,
    )


@rlimit
def test_a_refused_line_is_over_budget_in_the_words_of_every_breach(run: Callable[..., Run]) -> None:
    ran = run(EAT + "    def test_it(): eat()\n")

    record = ran["test_it"]
    assert (record.outcome, record.ending.kind) == ("failed", "over_budget")
    assert not record.budgets[0].held
    assert record.budgets[0].sentence.startswith("max_ram is 200")
    assert record.budgets[0].sentence.endswith("enforce='rlimit' refused more")
    assert record.stack[0].endswith(" in eat")
    ran.result.stdout.fnmatch_lines([record.budgets[0].sentence, "E  *MemoryError", "*::test_it  [[]over budget[]]"])


@rlimit
def test_a_refused_setup_is_over_budget_too(run: Callable[..., Run]) -> None:
    ran = run(
        EAT
        + """
    @pytest.fixture
    def hungry(): eat()
    def test_it(hungry): pass
"""
    )

    assert (ran["test_it"].outcome, ran["test_it"].ending.kind) == ("error", "over_budget")
    ran.result.stdout.fnmatch_lines(["*ERROR at setup of test_it*", ran["test_it"].budgets[0].sentence])


@rlimit
@pytest.mark.parametrize("raises", ["BudgetExceeded", "MemoryError"])
def test_a_refusal_is_expected_as_a_breach_or_as_what_it_raised(run: Callable[..., Run], raises: str) -> None:
    ran = run(EAT + f"    @pytest.mark.xfail(raises={raises}, strict=True)\n    def test_it(): eat()\n")

    assert ran["test_it"].outcome == "xfailed"


@rlimit
def test_an_error_of_the_tests_own_near_the_limit_stays_its_own(run: Callable[..., Run]) -> None:
    ran = run(
        EAT
        + """
    def test_it():
        held = b"x" * 160_000_000
        time.sleep(0.2)
        raise ValueError("mine")
"""
    )

    assert ran["test_it"].ending.kind == "raised"
    ran.result.stdout.fnmatch_lines(["E  *ValueError: mine"])


@pytest.mark.parametrize("by", ["rlimit", "job"])
def test_the_strictest_budget_is_the_one_that_refused(by: str) -> None:
    raised = Raised("MemoryError", "", (Frame("test_it.py", "3", "eat"), Frame("/x/_pytest/python.py", "1", "call")))

    judged = with_refusal(measured("100000000", "200000000", refusing_limit=by), raised)

    assert [verdict.held for verdict in judged.verdicts] == [False, True]
    assert judged.verdicts[0].sentence.endswith(f"10.0 MB left; enforce='{by}' refused more")
    assert [frame.function for frame in judged.stack.frames] == ["eat"]


@pytest.mark.parametrize(
    ("limit", "raised"),
    [(None, Raised("MemoryError", "")), ("rlimit", None), ("rlimit", Raised("ValueError", "bad shape"))],
)
def test_without_a_limit_or_a_refusal_no_budget_is_broken(limit: str | None, raised: Raised | None) -> None:
    judged = with_refusal(measured("100000000", refusing_limit=limit), raised)

    assert judged.verdicts[0].held
    assert judged.refusing_limit is None


@pytest.mark.parametrize(
    ("type_", "text", "refused"),
    [
        ("MemoryError", "", True),
        ("numpy._core._exceptions._ArrayMemoryError", "Unable to allocate 7.63 MiB for an array", True),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you", True),
        ("RuntimeError", "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.", True),
        ("OSError", "[Errno 12] Cannot allocate memory", True),
        ("OSError", "[WinError 1455] The paging file is too small for this operation to complete", True),
        ("safetensors.SafetensorError", "The paging file is too small (os error 1455)", True),
        (
            "torch.OutOfMemoryError",
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of",
            False,
        ),
        ("OSError", "[Errno 28] No space left on device", False),
    ],
)
def test_a_refusal_is_known_by_its_type_or_its_text(type_: str, text: str, refused: bool) -> None:
    assert is_refusal(Raised(type_, text)) is refused
