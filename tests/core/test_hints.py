"""Notes about budgets that held: what their verdict alone does not show."""

from pytest_llmmem.core.budgets import Budget, Verdict
from pytest_llmmem.core.hints import lazy_load_notes, setup_again_note, uncertain_notes
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.core.record_parts import Phase

MB = 10**6


def verdict(limit: str, used_mb: int, error_mb: int = 0, **rules: str) -> Verdict:
    parsed = parse_limit(limit)
    budget = Budget(kind="max_ram", limit=parsed, limit_bytes=parsed.bytes({}), **rules)  # type: ignore[arg-type]
    return budget.judge(used_mb * MB, error_mb * MB)


def peak(file_mb: int) -> Peak:
    return Peak(
        baseline_bytes=0,
        peak_bytes=10 * MB,
        peak_resident_bytes=(10 + file_mb) * MB,
        peak_file_bytes=file_mb * MB,
        absolute_peak_bytes=0,
        error_bytes=0,
    )


def test_a_breach_within_the_error_is_a_note() -> None:
    notes = uncertain_notes([verdict("100MB", 90), verdict("100MB", 130, 40), verdict("100MB", 200, 40)])

    assert len(notes) == 1
    assert notes[0].startswith("max_ram is 100 MB, used 130 MB unreclaimable: 30 MB over, uncertain by 40.0 MB")


def test_weights_that_were_never_read_make_a_held_budget_promise_little() -> None:
    (note,) = lazy_load_notes([verdict("100MB", 10)], peak(0), weights_bytes=1000 * MB, still_mapped_bytes=900 * MB)

    assert note.startswith("900 MB of 1.00 GB of weights were mapped and never resident")


def test_a_budget_that_does_not_count_files_says_so_where_they_would_break_it() -> None:
    held = [verdict("100MB", 10), verdict("100MB", 10, count="resident")]

    (note,) = lazy_load_notes(held, peak(500), weights_bytes=1000 * MB, still_mapped_bytes=0)

    assert note.startswith("held because mapped files do not count: they took 500 MB, the limit is 100 MB; slow below ")
    assert ": with less memory, mapped weights are dropped and read from the disk again and again; max_ram(" in note


def test_there_is_no_note_without_weights_a_peak_or_a_held_budget() -> None:
    assert lazy_load_notes([verdict("100MB", 10)], peak(500), weights_bytes=None, still_mapped_bytes=None) == ()
    assert lazy_load_notes([verdict("100MB", 10)], None, weights_bytes=MB, still_mapped_bytes=None) == ()
    assert lazy_load_notes([verdict("100MB", 300)], peak(500), weights_bytes=MB, still_mapped_bytes=None) == ()


def test_a_repeated_setup_names_the_test_whose_worker_ended() -> None:
    setup = Phase(name="setup", peak_bytes=50 * MB, seconds=1)

    assert "its setup used 50.0 MB and counts for no budget" in setup_again_note("test_x.py::test_a", [setup])
    assert "ended in test_x.py::test_a" in setup_again_note("test_x.py::test_a", [])
