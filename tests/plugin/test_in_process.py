"""Tests in pytest's own process: measured and judged there, and said."""

from collections.abc import Callable

import pytest

from tests.conftest import Run, needs

KNOWN = """
    import pytest

    @pytest.mark.max_ram("300MB")
    def test_fits(): assert b"x" * 200_000_000
    @pytest.mark.max_ram("100MB")
    def test_breaks(): assert b"x" * 200_000_000
    @pytest.mark.xfail(strict=True, reason="it is over its budget")
    @pytest.mark.max_ram("100MB")
    def test_is_expected_to_break(): assert b"x" * 200_000_000
    @pytest.mark.max_ram("100MB")
    def test_raises(): raise ValueError
    @pytest.mark.max_ram("8GBB")
    def test_bad_marker(): pass
    @pytest.mark.max_vram("1GB")
    def test_without_a_gpu(): pass
    def test_plain(): pass
"""


@needs("a kept peak of memory")
@pytest.mark.parametrize(
    "options", [("--llm-isolate=none",), ("--pdb", "-k", "not bad and not raises"), ("-q", "--llm-isolate=none")]
)
def test_budgets_are_judged_and_it_is_said_where(run: Callable[..., Run], options: tuple[str, ...]) -> None:
    ran = run(KNOWN, *options)

    outcomes = {test.nodeid.partition("::")[2]: test.outcome for test in ran.record.tests}
    expected = {
        "test_fits": "passed",
        "test_breaks": "failed",
        "test_is_expected_to_break": "xfailed",
        "test_raises": "failed",
        "test_without_a_gpu": "skipped",
    }
    assert outcomes.items() <= expected.items()
    assert {"test_fits", "test_breaks", "test_is_expected_to_break"} <= set(outcomes)
    ran.result.stdout.fnmatch_lines(
        ["llmmem: nothing is isolated or guarded (*): * measured in this process; *baselines are not applied"]
    )
    ran.result.stdout.fnmatch_lines(["*max_ram is 100 MB, used 200 MB unreclaimable: 100 MB over"])


def test_a_marker_that_cannot_be_used_fails_its_test(run: Callable[..., Run]) -> None:
    ran = run(KNOWN, "--llm-isolate=none", "-k", "bad")

    ran.result.assert_outcomes(failed=1)
    ran.result.stdout.fnmatch_lines(["max_ram: '8GBB' is not a limit*"])


@needs("a kept peak of memory")
def test_the_record_has_the_phases_and_the_peak(run: Callable[..., Run]) -> None:
    record = run(KNOWN, "--llm-isolate=none", "-k", "fits")["test_fits"]

    assert record.ram is not None
    assert abs(record.ram.peak_bytes - 200_000_000) < 3_000_000
    assert [phase.name for phase in record.phases] == ["setup", "call", "teardown"]
    assert max(record.phases, key=lambda phase: phase.peak_bytes).name == "call"
    assert record.ending.kind == "completed"


@needs("a kept peak of memory")
def test_blocks_are_measured_in_tests_and_in_fixtures_of_any_scope(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest

        @pytest.fixture(scope="session")
        def table(memory_budget):
            with memory_budget("100MB", name="table") as spent:
                table = b"x" * 50_000_000
            assert 49_000_000 < spent.peak_bytes < 60_000_000
            return table

        def test_plain(table): pass
        @pytest.mark.in_worker
        def test_marked(table): pass
        def test_block(memory_budget):
            with memory_budget("50MB", name="decode") as spent:
                b"x" * 20_000_000
            assert 19_000_000 < spent.peak_bytes < 25_000_000
        def test_block_breaks(memory_budget):
            with memory_budget("10MB", name="decode"):
                b"x" * 20_000_000
        def test_terms(memory_budget):
            with memory_budget("2 * weights"): pass
        """,
        "--llm-isolate=none",
    )

    ran.result.assert_outcomes(passed=3, failed=2)
    assert ran["test_block_breaks"].ending.kind == "over_budget"
    ran.result.stdout.fnmatch_lines(["*in terms of a checkpoint, and this test has none*"])


def test_a_fixture_of_the_session_measures_in_the_parent_and_in_workers(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest

        @pytest.fixture(scope="session")
        def table(memory_budget):
            with memory_budget(None, name="table") as spent:
                table = b"x" * 50_000_000
            assert 49_000_000 < spent.peak_bytes < 60_000_000
            return table

        def test_plain(table): pass
        @pytest.mark.in_worker
        def test_isolated(table): pass
        """
    )

    ran.result.assert_outcomes(passed=2)


def test_the_quick_start_passes_without_isolation(run: Callable[..., Run]) -> None:
    ran = run(
        """
        def test_one_step_is_small(memory_budget):
            with memory_budget("50MB", name="decode") as spent:
                bytearray(20_000_000)
            assert spent.peak_bytes < 50_000_000
        """,
        "--llm-isolate=none",
    )

    ran.result.assert_outcomes(passed=1)


def test_nothing_is_said_where_nothing_is_marked(run: Callable[..., Run]) -> None:
    ran = run("def test_it(): pass", "--pdb")

    assert "llmmem:" not in ran.text.replace("llmmem: wrote", "")
