"""The page of many reports: what is in the file that ``llmmem history --html`` writes, and what a real browser makes of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmmem.baselines.history import Trend, read_reports, trends
from pytest_llmmem.baselines.tolerance import parse_tolerance
from pytest_llmmem.cli import baselines as cli
from pytest_llmmem.core.errors import BaselineError
from pytest_llmmem.core.records import SessionRecord
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.reports import json as report
from pytest_llmmem.reports.history import Line, Point, headline, render
from tests.baselines.records import record, session
from tests.reports.browser import launched, opened
from tests.reports.test_html import ASSETS, PHONE, Elements, in_a_browser, names, opened_test, pixels

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RUNS = 12
TOLERANCE = parse_tolerance(cli.DEFAULT)


def sample() -> Iterator[SessionRecord]:
    """Tests that grow, shrink, come back, creep and hold, one that is not always there, and one that comes late."""
    for run in range(RUNS):
        tests = [
            record("test_load.py::test_grows", 21.7 if run < 7 else 465, error=0.7),
            record("test_load.py::test_shrinks", 5350 if run < 3 else 2710, error=1),
            record("test_gpu.py::test_comes_back", 850, vram={"cuda:0": 3500 if 4 <= run < 6 else 2900}),
            record("test_load.py::test_creeps", 400 + 5 * run),
            record("test_load.py::test_holds", 200 + run % 3, error=0.1),
        ]
        if run not in {4, 5}:
            tests.append(record("test_load.py::test_is_missing_twice", 60))
        if run == RUNS - 1:
            tests.append(record("test_load.py::test_is_new", 77))
        yield session(*tests)


def folder_of(reports: Iterator[SessionRecord] | list[SessionRecord], folder: Path, *, name: str = "run-{}") -> Path:
    folder.mkdir()
    for number, each in enumerate(reports, start=1):
        folder.joinpath(f"{name.format(number)}.json").write_text(report.render(each))
    return folder


def written(folder: Path, *, tolerance: str = cli.DEFAULT) -> Path:
    """The page that the command writes, beside the folder."""
    file = folder.with_suffix(".html")
    cli.history(folder, tolerance=tolerance, html=file)
    return file


def trend_of(name: str, measure: str = "unreclaimable") -> Trend:
    reports = [(f"run-{number}", each) for number, each in enumerate(sample(), start=1)]
    (found,) = [one for one in trends(reports, TOLERANCE) if one.nodeid.endswith(name) and one.measure == measure]
    return found


def line(*sizes_and_levels: tuple[int, int]) -> Line:
    points = (
        Point(report=f"run-{number}", size_bytes=size, level_bytes=level, allowed_bytes=10)
        for number, (size, level) in enumerate(sizes_and_levels)
    )
    return Line(nodeid="test_x.py::test_a", machine="linux cpu", measure="unreclaimable", points=tuple(points))


@pytest.mark.parametrize(
    ("points", "state"),
    [
        ([(100, 100)], "held"),
        ([(100, 100), (109, 100), (95, 100)], "held"),
        ([(100, 100), (150, 150), (149, 150)], "grew"),
        ([(100, 100), (150, 150), (80, 80)], "shrank"),
        ([(100, 100), (150, 150), (105, 105)], "came back"),
    ],
)
def test_the_state_is_where_the_level_went(points, state):
    assert line(*points).state == state


def test_the_headline_counts_tests_reports_and_changes():
    grew, held = line((100, 100), (150, 150)), line((100, 100), (100, 100))

    assert headline([grew, held], ["run-0", "run-1"]) == "1 test in 2 reports: 1 grew"
    assert headline([held], ["run-0"]) == "1 test in 1 report: none has changed"
    assert headline([], ["run-0"]) == "0 tests in 1 report: none has changed"


def test_each_point_stands_beside_the_level_that_is_kept_from_there_on(tmp_path):
    reports = [session(record(peak=peak, error=1)) for peak in (100, 110, 300, 310)]

    data = json.loads(
        Elements(written(folder_of(reports, tmp_path / "reports")).read_text(encoding="utf-8")).scripts[0]
    )

    (only,) = data["lines"]
    assert [round(size / 1e6) for size in only["levels"]] == [100, 100, 300, 300]
    assert [round(size / 1e6) for size in only["allowed"]] == [23, 23, 33, 33]  # 5% + 16MB, and 1 MB of error each


def test_the_file_names_no_other_and_has_the_library_with_its_license(tmp_path):
    page = written(folder_of(sample(), tmp_path / "reports")).read_text(encoding="utf-8")

    assert all(address.startswith("data:") for address in Elements(page).addresses)
    assert "default-src 'none'" in page
    assert ASSETS.joinpath("uPlot.LICENSE").read_text(encoding="utf-8") in page


def test_no_text_leaves_its_place():
    nasty = "</script><script>throw 1</script><!-- `*_ & é한"
    points = (Point(report=nasty, size_bytes=1, level_bytes=1, allowed_bytes=0),)
    hostile = Line(nodeid=f"test_x.py::{nasty}", machine=nasty, measure=nasty, points=points)

    elements = Elements(render([hostile], [nasty], tolerance="5%"))

    assert elements.tags.count("script") == 3
    assert json.loads(elements.scripts[0])["machines"] == {nasty: [nasty]}


def test_the_command_says_the_same_with_a_page_as_without(tmp_path, capsys):
    folder = folder_of(sample(), tmp_path / "reports")

    cli.history(folder)
    plain = capsys.readouterr()
    cli.history(folder, html=tmp_path / "page.html")
    with_page = capsys.readouterr()
    cli.history(folder, html=tmp_path / "page.html", json=True)

    assert with_page.out == plain.out
    assert (plain.err, with_page.err) == ("", f"wrote {tmp_path / 'page.html'}\n")
    assert json.loads(capsys.readouterr().out)["schema"] == 1


def test_a_page_that_cannot_be_written_is_a_message(tmp_path):
    folder = folder_of(sample(), tmp_path / "reports")

    with pytest.raises(BaselineError, match=r"^--html .*[/\\]nowhere[/\\]page.html: cannot be written \(No such file"):
        cli.history(folder, html=tmp_path / "nowhere" / "page.html")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with launched() as browser:
        yield browser


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(folder_of(sample(), tmp_path / "reports"))


@pytest.fixture
def page(browser: "Browser", file: Path) -> Iterator["Page"]:
    with opened(browser, file) as page:
        yield page


@in_a_browser
def test_a_row_tells_what_the_commands_table_tells(page: "Page", tmp_path: Path) -> None:
    found = trends(read_reports(tmp_path / "reports"), TOLERANCE)

    rows = page.locator("#tests summary").all()

    told = [
        [" ".join(cell.split()) for cell in row.locator(".name, .number, .where").all_inner_texts()] for row in rows
    ]
    assert len(told) == len(found) == 8
    for trend in found:
        _, first, last, change, measure, steps, nodeid = trend.row()
        name = " ".join([*nodeid.split("::"), *([] if measure == "unreclaimable" else [measure])])
        where = steps.replace("(", "").replace(")", "")
        assert [name, f"{first} first", f"{last} last", change, where] in told


@in_a_browser
def test_growth_comes_first_and_what_held_last(page: "Page") -> None:
    states = page.locator("#tests .outcome").all_inner_texts()

    assert states == ["grew", "grew", "shrank", "came back", *["held"] * 4]
    assert page.locator("#outcomes button").all_inner_texts() == ["all8", "grew2", "shrank1", "came back1", "held4"]


@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_chart_has_its_line_its_level_and_the_growth(browser: "Browser", file: Path, scheme: str) -> None:
    with opened(browser, file, color_scheme=scheme) as page:
        opened_test(page, "test_grows")
        drawn = {color: pixels(page, color) for color in ("--ram", "--shade", "--bad")}

    assert min(drawn["--ram"], drawn["--bad"]) > 150
    assert drawn["--shade"] > 5000


@in_a_browser
def test_what_held_has_no_mark_of_growth(page: "Page") -> None:
    opened_test(page, "test_holds")

    assert pixels(page, "--ram") > 150
    assert pixels(page, "--bad") == 0


@in_a_browser
def test_the_keyboard_reads_a_chart_report_by_report(page: "Page") -> None:
    trend = trend_of("test_grows")
    page.keyboard.press("/")
    page.keyboard.type("test_grows")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#tests details[open] canvas")
    page.locator(".chart").focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    at_the_step = page.inner_text(".readout")
    size, level = page.locator(".legend b").all_inner_texts()
    page.keyboard.press("ArrowLeft")
    before_it = page.inner_text(".readout")
    page.keyboard.press("Escape")

    (step,) = trend.steps
    assert at_the_step == f"{step.report} · +443 MB, a new level"
    assert before_it == "run-7 · at its level"
    assert size == format_size(step.change.after_bytes, "MB")
    assert level == f"{size} ± {format_size(TOLERANCE.bytes(step.change.after_bytes) + 1_400_000, 'MB')}"
    assert page.locator("#tests details[open]").count() == 0


@in_a_browser
def test_a_report_in_which_the_test_is_missing_has_no_size(page: "Page") -> None:
    opened_test(page, "test_is_missing_twice")
    page.locator(".chart").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")

    assert page.inner_text(".readout") == "run-5 · did not run to its end"
    assert page.locator(".legend b").all_inner_texts() == ["", ""]
    assert "10 of 12" in page.inner_text("#tests details[open] .facts")


@in_a_browser
def test_every_chart_is_drawn(page: "Page") -> None:
    page.evaluate("document.querySelectorAll('#tests details').forEach((one) => (one.open = true))")
    page.wait_for_function("() => document.querySelectorAll('#tests canvas').length === 8")


@in_a_browser
def test_every_step_is_in_the_table_under_the_chart(page: "Page") -> None:
    trend = trend_of("test_comes_back", "vram cuda:0")

    opened_test(page, "vram cuda:0")

    told = page.locator("#tests details[open] tbody tr").all_inner_texts()
    for step in trend.steps:
        before, after = (format_size(size, "MB") for size in (step.change.before_bytes, step.change.after_bytes))
        assert f"{step.report}\t{before}\t{after}\t{str(step).split('(')[1][:-1]}" in told


@in_a_browser
def test_words_states_and_headings_arrange_the_list(page: "Page") -> None:
    page.fill("#words", "run-4 load")
    assert names(page) == ["test_shrinks"]

    page.press("#words", "Escape")
    page.locator("#outcomes button", has_text="grew").click()
    assert names(page) == ["test_grows", "test_creeps"]

    latest = page.locator("#order button", has_text="where it changed")
    latest.click()
    assert names(page) == ["test_creeps", "test_grows"]
    latest.click()
    assert names(page) == ["test_grows", "test_creeps"]


@in_a_browser
@pytest.mark.parametrize("width", [320, 390, 700, 1000])
def test_nothing_is_wider_than_the_screen(browser: "Browser", tmp_path: Path, width: int) -> None:
    folder = folder_of(sample(), tmp_path / "reports", name="nightly-2026-11-21T10-00-00-abc123-{}")
    with opened(browser, written(folder), viewport={"width": width, "height": 740}, is_mobile=width < 500) as page:
        page.evaluate("document.querySelectorAll('#tests details').forEach((one) => (one.open = true))")
        page.wait_for_selector("canvas")
        wide = page.evaluate("document.documentElement.scrollWidth")
        chart = page.locator("canvas").first.bounding_box()

    assert wide == width
    assert chart is not None
    assert width * 0.7 < chart["width"] <= width


@in_a_browser
def test_machines_have_rows_and_addresses_of_their_own(browser: "Browser", tmp_path: Path) -> None:
    reports = [session(record(peak=peak), machine=machine) for peak in (5, 500) for machine in ("x86_64", "aarch64")]
    file = written(folder_of(reports, tmp_path / "reports"))
    fragment = "#tests/test_x.py::test_a linux-x86_64 torch2.13 transformers5.23 cpu"

    with opened(browser, file, fragment=fragment) as page:
        page.wait_for_selector("#tests details[open] canvas")
        rows = page.locator("#tests .name").all_inner_texts()
        told = page.inner_text("#tests details[open]")

    assert sorted(row.split("\n")[-1].split()[0] for row in rows) == ["linux-aarch64", "linux-x86_64"]
    assert "linux-x86_64" in told
    assert "2 of 2" in told
    assert "run-3" in told


@in_a_browser
def test_hostile_text_is_shown_as_it_is(browser: "Browser", tmp_path: Path) -> None:
    nasty = "</script><script>throw 1</script><!-- `*_ & é한"
    points = tuple(
        Point(report=f"{nasty}{number}", size_bytes=size, level_bytes=size, allowed_bytes=0)
        for number, size in enumerate((1, 9))
    )
    hostile = Line(nodeid=f"test_x.py::{nasty}", machine=nasty, measure="unreclaimable", points=points)
    file = tmp_path / "page.html"
    file.write_text(render([hostile], [point.report for point in points], tolerance="5%"))

    with opened(browser, file, **PHONE) as page:
        opened_test(page, "throw 1")
        told = page.inner_text("#tests details[open] tbody")

        assert names(page) == [nasty]
        assert told.startswith(f"{nasty}1")
        assert page.evaluate("document.scripts.length") == 3


@in_a_browser
def test_reports_in_which_nothing_ran_to_its_end_have_a_page(browser: "Browser", tmp_path: Path) -> None:
    crashed = session(record(kind="crashed", phase="call", outcome="failed"))

    with opened(browser, written(folder_of([crashed], tmp_path / "reports"))) as page:
        assert page.inner_text("#headline") == "0 tests in 1 report: none has changed"
        assert names(page) == []
