"""An isolated test behaves as in plain pytest, and every report is written."""

import os
from pathlib import Path

import pytest

from pytest_llmmem.core.long_paths import reachable
from tests.windows.conftest import Session, run_session

BLOCK = """
    import pytest

    @pytest.mark.in_worker
    def test_block(): bytearray(20_000_000)
"""

SOURCE = r"""
    import os, warnings

    import pytest

    pytestmark = pytest.mark.in_worker(scope="module")
    pids = []

    def test_first():
        pids.append(os.getpid())

    def test_second():
        assert pids == [os.getpid()]

    def test_captures(capfd, tmp_path):
        os.write(1, b"seen")
        assert capfd.readouterr().out == "seen"
        (tmp_path / "file").write_text("x")

    def test_skips():
        pytest.skip("not here")

    def test_warns():
        warnings.warn("careful")

    @pytest.mark.max_ram("500MB")
    def test_ünïcode():
        print("größer")

    def test_dies():
        os._exit(1)

    def test_goes_on():
        assert pids == []
"""
REPORTS = ("page.html", "page.md", "page.trace.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a folder with ünïcode")


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    return run_session(folder, SOURCE, *(f"--llm-report={name}" for name in REPORTS), "--junitxml=junit.xml")


def test_a_group_shares_a_worker_and_goes_on_after_a_death(session: Session) -> None:
    outcomes = [session[f"test_{name}"].outcome for name in ("first", "second", "dies", "goes_on")]

    assert outcomes == ["passed", "passed", "failed", "passed"]


def test_fixtures_capture_skips_and_warnings_are_those_of_plain_pytest(session: Session) -> None:
    outcomes = [session[f"test_{name}"].outcome for name in ("captures", "skips", "warns")]

    assert outcomes == ["passed", "skipped", "passed"]
    assert "UserWarning: careful" in session.text


@pytest.mark.parametrize("name", [*REPORTS, "junit.xml"])
def test_a_report_is_written_in_utf_8(session: Session, folder: Path, name: str) -> None:
    assert session["test_ünïcode"].outcome == "passed"
    text = (folder / name).read_text(encoding="utf-8")
    assert "test_ünïcode" in text or "test_\\u00fcn\\u00efcode" in text


def test_output_is_seen_without_capture_and_every_test_can_be_isolated(tmp_path: Path) -> None:
    source = """
        import os, sys

        def test_prints():
            print("by Python")
            sys.stderr.write("to stderr\\n")
            os.write(1, b"by the system\\n")

        def test_leaves():
            raise SystemExit(3)
    """

    session = run_session(tmp_path, source, "-s", "--llm-isolate=all")

    for words in ("by Python", "to stderr", "by the system"):
        assert words in session.text
    assert (session["test_prints"].outcome, session["test_leaves"].outcome) == ("passed", "failed")


def test_reports_and_baselines_are_written_beyond_260_characters(tmp_path: Path) -> None:
    folder = os.path.join("d" * 100, "e" * 100, "f" * 100)
    options = (f"--llm-report={folder}/report.html", f"--llm-baseline={folder}/baselines.json")

    session = run_session(tmp_path, BLOCK, *options, "--llm-baseline-update")

    assert session.code == 0, session.text
    assert {path.name for path in reachable(tmp_path / folder).iterdir()} >= {"report.html", "baselines.json"}
