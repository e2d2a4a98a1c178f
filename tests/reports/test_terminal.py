"""The table is aligned, the worst first, and as long as was asked for."""

from pytest_llmmem.core.budgets import Verdict
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.core.record_parts import Outcome, Phase, TrialRecord
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.reports.terminal import table, trial_table

MB = 10**6


def record(name: str, peak: int, limit: int | None = None, outcome: Outcome = "passed", **ending: object) -> TestRecord:
    budgets = (
        ()
        if limit is None
        else (
            Verdict(kind="max_ram", limit=f"{limit}MB", limit_bytes=limit * MB, actual_bytes=peak * MB,
                         held=peak <= limit),
        )
    )  # fmt: skip
    return TestRecord(
        nodeid=f"test_x.py::{name}", outcome=outcome, duration_s=1.5,
        ending=Ending(**{"kind": "completed", **ending}),
        ram=Peak(baseline_bytes=100 * MB, peak_bytes=peak * MB, peak_resident_bytes=peak * MB, peak_file_bytes=5 * MB,
                      absolute_peak_bytes=(100 + peak) * MB, error_bytes=MB, method="kernel", interval_ms=2.0),
        phases=(Phase(name="call", peak_bytes=peak * MB, seconds=1.0),), budgets=budgets,
    )  # fmt: skip


def session(*tests: TestRecord) -> SessionRecord:
    return SessionRecord(environment={}, tests=tests)


def test_the_table_is_aligned_and_the_worst_comes_first() -> None:
    lines = list(
        table(
            session(
                record("test_fine", 12, 300),
                record("test_none", 7),
                record("test_over", 412, 300, "failed", kind="over_budget", phase="call"),
                record("test_dead", 50, None, "failed", kind="crashed", signal="SIGSEGV", phase="setup"),
                record("test_near", 290, 300),
            )
        )
    )

    assert lines == [
        "unreclaimable  + files  budget        test",
        "       412 MB  5.00 MB  300 MB  137%  test_x.py::test_over  [over budget in call]",
        "      50.0 MB  5.00 MB                test_x.py::test_dead  [crashed SIGSEGV in setup]",
        "       290 MB  5.00 MB  300 MB   97%  test_x.py::test_near",
        "      12.0 MB  5.00 MB  300 MB    4%  test_x.py::test_fine",
        "      7.00 MB  5.00 MB                test_x.py::test_none",
    ]


def test_quiet_prints_nothing_and_verbose_prints_all() -> None:
    many = session(*(record(f"test_{n}", n) for n in range(30)))

    assert list(table(many, verbosity=-1)) == []
    short, long = list(table(many)), list(table(many, verbosity=1))
    assert (len(short), short[-1]) == (12, "and 20 more: -v shows all")
    assert len(long) == 31
    assert "  call: 29.0 MB in 1.00 s" in list(table(many, verbosity=2))


def test_without_measured_tests_there_is_no_section() -> None:
    assert list(table(session())) == []


def trial(peak: int, resident: int, *, fits: bool = True) -> TrialRecord:
    ending = "completed" if fits else "over_budget"
    return TrialRecord(
        load="default", ending=ending, fits=fits, peak_bytes=peak * MB, peak_resident_bytes=resident * MB,
        seconds=1.0, disk_bytes=0, call="load()" if fits else "", why="" if fits else "max_ram is 1 GB",
    )  # fmt: skip


def test_a_load_that_fits_since_its_weights_are_mapped_says_where_it_is_slow_and_what_that_means() -> None:
    lines = list(trial_table([trial(3000, 3000, fits=False), trial(30, 2690)]))

    assert lines[2].endswith("fits, slow below 2.69 GB")
    assert lines[3:] == [
        "  use: load()",
        "  slow below: with less memory, mapped weights are dropped and read from the disk again and again",
    ]


def test_a_load_that_copies_is_never_slow() -> None:
    lines = list(trial_table([trial(2690, 2700)]))

    assert lines[1].endswith("fits")
    assert lines[2:] == ["  use: load()"]
