"""The hooks that a team's conftest.py may implement."""

from collections.abc import Callable

import pytest

from tests.conftest import Run, needs

FAILS = """
    import pytest

    @pytest.mark.in_worker
    def test_it(): raise ConnectionError("license server: no seat left")
"""


def test_a_rule_of_ones_own_explains_a_failure(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from pytest_llmmem import Diagnosis, Facts

        def no_seat(facts: Facts):
            if facts.error_name == "ConnectionError" and "no seat" in facts.error_text:
                return Diagnosis(
                    id="no-seat", happened="No seat was left.", why="Ten may load at once.", next=("Try again later.",)
                )

        def pytest_llmmem_diagnoses():
            return [no_seat]
        """
    )

    ran = run(FAILS)

    ran.result.stdout.fnmatch_lines(["*llmmem: what to do*", "No seat was left.", "Ten may load at once."])
    assert ran["test_it"].diagnosis is not None
    assert ran["test_it"].diagnosis.id == "no-seat"


def test_a_rule_that_fails_itself_is_told(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makeconftest("def wrong(facts): return facts.eror\ndef pytest_llmmem_diagnoses(): return [wrong]")

    ran = run(FAILS)

    ran.result.assert_outcomes(failed=1)
    ran.result.stdout.fnmatch_lines(["wrong of pytest_llmmem_diagnoses raised AttributeError: *eror*"])


def test_a_report_format_of_ones_own_is_chosen_by_its_ending(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(
        """
        def lines(record):
            return "\\n".join(f"{test.nodeid},{test.ram.peak_bytes}" for test in record.tests)

        def broken(record):
            raise KeyError("no such test")

        def pytest_llmmem_report_formats():
            return {".csv": lines, ".broken": broken}
        """
    )

    ran = run(FAILS, "--llm-report=memory.csv", "--llm-report=memory.broken")
    refused = pytester.runpytest_subprocess("--llm-report=memory.txt")

    name, peak = (pytester.path / "memory.csv").read_text().split(",")
    assert (name, int(peak)) == (ran["test_it"].nodeid, ran["test_it"].ram.peak_bytes)
    ran.result.stdout.fnmatch_lines(
        [
            "llmmem: wrote *memory.csv",
            "llmmem: *memory.broken is not written: the renderer of .broken raised KeyError: *",
        ]
    )
    refused.stderr.fnmatch_lines(
        ["*'memory.txt' has no ending*: use one of trace.json, .json, .html, .md, .csv, .broken"]
    )


@pytest.mark.parametrize(
    ("ending", "why"), [("csv", "is not the ending of a file"), (".md", "is taken"), (".mine.json", "is taken")]
)
def test_an_ending_that_cannot_be_used_is_one_sentence(pytester: pytest.Pytester, ending: str, why: str) -> None:
    pytester.makeconftest(f"def pytest_llmmem_report_formats(): return {{{ending!r}: str}}")

    result = pytester.runpytest_subprocess("--llm-report=memory.json")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: pytest_llmmem_report_formats: {ending!r} {why}: *"])


@needs("xdist")
def test_a_hook_hears_of_each_measured_test(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        def pytest_llmmem_record(record, config):
            with (config.rootpath / "heard").open("a") as file:
                file.write(f"{record.nodeid} {record.outcome}\\n")
            if record.outcome == "failed":
                raise OSError("tracking server is away")
        """
    )

    ran = run(FAILS + "\n    def test_plain(): pass\n", "-n1")

    assert (pytester.path / "heard").read_text() == f"{ran['test_it'].nodeid} failed\n"
    ran.result.assert_outcomes(failed=1, passed=1)
    ran.result.stdout.fnmatch_lines(["llmmem: pytest_llmmem_record raised OSError: tracking server is away"])
