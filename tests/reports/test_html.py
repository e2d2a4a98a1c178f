"""The page: what is in the file, and what a real browser makes of it."""

import base64
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmmem.core.record_parts import RankRecord, TimelineRecord
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.reports import html
from tests.reports.browser import MISSING, launched, opened
from tests.reports.records import hostile, large, sample
from tests.reports.shapes import budget, ram

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ASSETS = Path(html.__file__).parent / "assets"
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
in_a_browser = pytest.mark.skipif(MISSING is not None, reason=f"needs {MISSING}")


class Elements(HTMLParser):
    """The elements of a page as a browser would find them, and the texts of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and self.lasttag == "script":
            self.scripts[-1] += data


def test_the_file_names_no_other() -> None:
    page = html.render(sample())

    assert all(address.startswith("data:") for address in Elements(page).addresses)
    assert re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|import\(", page) is None
    assert "default-src 'none'" in page


def test_the_library_comes_with_its_license() -> None:
    page = html.render(sample())

    assert ASSETS.joinpath("uPlot.LICENSE").read_text(encoding="utf-8") in page
    assert ASSETS.joinpath("uPlot.iife.min.js").read_text(encoding="utf-8") in page


def test_no_text_leaves_its_place() -> None:
    record = hostile()

    page = html.render(record)

    elements = Elements(page)
    assert elements.tags.count("script") == Elements(html.render(sample())).tags.count("script")
    assert json.loads(elements.scripts[0])["tests"][0]["nodeid"] == record.tests[0].nodeid
    assert page.encode("utf-8")


def test_each_rank_is_a_line_of_the_chart_on_the_moments_of_the_sum() -> None:
    def course(seconds: tuple[float, ...], held: tuple[int, ...]) -> TimelineRecord:
        return TimelineRecord(seconds=seconds, unreclaimable_bytes=held, file_bytes=(0,) * len(held))

    rank = RankRecord(rank=0, peak_bytes=0, peak_resident_bytes=0)
    ranks = (
        replace(rank, timeline=course((0.5, 0.6, 1.5), (4096, 9216, 2048))),
        replace(rank, rank=1, timeline=course((0.0,), (1024,))),
        replace(rank, rank=2),  # launched by the test itself, and so without a timeline
    )
    test = replace(sample().tests[0], ranks=ranks, timeline=course((0.0, 1.0, 2.0), (1024, 10240, 3072)))

    page = html.render(SessionRecord(environment={}, tests=(test,)))

    drawn = json.loads(Elements(page).scripts[0])["tests"][0]["timeline"]
    assert drawn["ranks"] == [0, 1]
    assert unpacked(drawn)[3:] == [[0, 9216, 2048], [1024, 1024, 1024]]


def unpacked(drawn: Mapping[str, Any]) -> list[list[float]]:
    """The columns of a packed timeline, as the page's script has them."""
    data = zlib.decompress(base64.b64decode(drawn["data"]))
    size, points = len(data) // 4, len(data) // 4 // len(drawn["steps"])
    numbers = [int.from_bytes(data[at::size], "little", signed=True) for at in range(size)]
    columns = [accumulate(numbers[start : start + points]) for start in range(0, size, points)]
    return [[number * step for number in column] for column, step in zip(columns, drawn["steps"], strict=True)]


@in_a_browser
def test_a_limit_and_its_use_are_told_apart_wherever_they_stand(browser: "Browser", tmp_path: Path) -> None:
    near = replace(sample().tests[1], ram=ram(2002.9, 10), budgets=(budget("2GB", 2000, 2002.9),))
    path = tmp_path / "near.html"
    path.write_text(html.render(SessionRecord(environment={}, tests=(near,))), encoding="utf-8")

    with opened(browser, path) as page:
        page.click("#tests summary")
        row = page.inner_text("#tests summary")
        told = page.inner_text("#tests .detail")

    assert "101%" in row
    assert "of max_ram 2.0000 GB" in row
    assert "max_ram is 2.0000 GB, used 2.0029 GB unreclaimable: 0.0029 GB over" in told
    assert re.search(r"2\.0000 GB\s+2\.0029 GB\s+unreclaimable\s+broken", told)


def test_200_tests_of_2000_points_and_with_steps_are_less_than_1_6_megabytes() -> None:
    assert len(html.render(large(tests=200, points=2000))) < 1_600_000


def test_of_very_many_tests_the_page_has_the_worst_and_says_so() -> None:
    few = sample().tests[:1]
    failed = replace(few[0], nodeid="test_x.py::test_failed", outcome="failed")
    record = SessionRecord(environment={}, tests=(*(replace(few[0], timeline=None),) * 5000, failed))

    page = html.render(record)

    tests = json.loads(Elements(page).scripts[0])["tests"]
    assert len(tests) == 5000
    assert tests[0]["nodeid"] == "test_x.py::test_failed"
    assert "5001 isolated tests: 1 failed, 5000 passed. Shown are the 5,000 worst; the JSON report has all" in page


def test_a_session_without_tests_has_a_page() -> None:
    assert "No test ran in a worker" in html.render(SessionRecord(environment={}, tests=()))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground", "least"),
    [("ink", "panel", 7), ("ink", "page", 7), ("ink", "hover", 7), ("muted", "panel", 4.5), ("muted", "page", 4.5), ("muted", "shade", 4.5),
     ("bad", "panel", 4.5), ("bad", "hover", 4.5), ("ram", "panel", 3), ("file", "panel", 3), ("vram", "panel", 3), ("accent", "track", 3)],
)  # fmt: skip
def test_colors_can_be_told_from_their_ground(scheme: int, ink: str, ground: str, least: float) -> None:
    """Contrast as WCAG 2 defines it: 7 and 4.5 for text, 3 for what is drawn."""
    colors = dict(re.findall(r"--(\w+): light-dark\((.*)\);", ASSETS.joinpath("page.css").read_text(encoding="utf-8")))

    brighter, darker = sorted((luminance(colors[name].split(", ")[scheme]) for name in (ink, ground)), reverse=True)

    assert (brighter + 0.05) / (darker + 0.05) >= least


def luminance(color: str) -> float:
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with launched() as browser:
        yield browser


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(sample(points=200), tmp_path)


@pytest.fixture
def page(browser: "Browser", file: Path) -> Iterator["Page"]:
    with opened(browser, file) as page:
        yield page


def written(record: SessionRecord, folder: Path) -> Path:
    file = folder / "report.html"
    file.write_text(html.render(record), encoding="utf-8")
    return file


def names(page: "Page") -> list[str]:
    """The tests in the list, without their files."""
    return [
        text.strip()
        for text in page.locator("#tests .name").evaluate_all("all => all.map((one) => one.lastChild.textContent)")
    ]


def opened_test(page: "Page", name: str) -> None:
    page.locator("#tests summary", has_text=name).click()
    page.wait_for_selector("#tests details[open] canvas")


def pixels(page: "Page", color: str) -> int:
    """How many pixels of the open chart are nearly of a color of the page."""
    return page.evaluate(
        """(name) => {
            const [red, green, blue] = colorOf(name).match(/\\d+/g).map(Number);
            const canvas = document.querySelector("#tests details[open] canvas");
            const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
            const near = (at) => Math.abs(data[at] - red) + Math.abs(data[at + 1] - green) + Math.abs(data[at + 2] - blue) < 24;
            let found = 0;
            for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 200 && near(at)) found += 1;
            return found;
        }""",
        color,
    )


@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_chart_has_its_lines_and_the_breach(browser: "Browser", file: Path, scheme: str) -> None:
    with opened(browser, file, color_scheme=scheme) as page:
        opened_test(page, "test_float32_fits")
        drawn = {color: pixels(page, color) for color in ("--ram", "--file", "--vram", "--bad", "--ink")}

    assert min(drawn["--ram"], drawn["--file"], drawn["--bad"], drawn["--ink"]) > 150
    assert drawn["--vram"] == 0


@in_a_browser
def test_vram_is_a_line_and_no_breach_is_drawn_where_none_was(page: "Page") -> None:
    opened_test(page, "test_generates_on_the_gpu")

    assert pixels(page, "--vram") > 150
    assert pixels(page, "--bad") == 0


@in_a_browser
def test_a_line_can_be_hidden(page: "Page") -> None:
    opened_test(page, "test_generates_on_the_gpu")

    button = page.locator(".legend button", has_text="VRAM")
    button.click()

    assert button.get_attribute("aria-pressed") == "false"
    page.wait_for_function("() => charts.size === 1")
    page.evaluate("() => new Promise(requestAnimationFrame)")
    assert pixels(page, "--vram") == 0


@in_a_browser
def test_every_timeline_is_drawn(page: "Page") -> None:
    timelines = sum(test.timeline is not None for test in sample().tests)

    page.evaluate("document.querySelectorAll('#tests details').forEach((one) => (one.open = true))")
    page.wait_for_function("(count) => document.querySelectorAll('#tests canvas').length === count", arg=timelines)

    assert page.locator(".chart p").count() == 0


@in_a_browser
def test_the_browser_reads_the_numbers_that_were_packed(browser: "Browser", tmp_path: Path) -> None:
    hundred_hours = TimelineRecord(
        seconds=(0.0, 0.0002, 3.5, 360_000.0),
        unreclaimable_bytes=(0, -(2**20), 5 * 2**40, 123_456_789),
        file_bytes=(4096, 0, 2**31, 2**33),
        vram_bytes=(0, 0, 80 * 2**30, 1),
    )
    tests = [*large(tests=8, points=500).tests, replace(sample().tests[0], nodeid="test_long", timeline=hundred_hours)]

    with opened(browser, written(SessionRecord(environment={}, tests=tuple(tests)), tmp_path)) as page:
        unpacked = dict(
            page.evaluate(
                "Promise.all(DATA.tests.map(async (t) => [t.nodeid, (await unpack(t.timeline)).map((c) => [...c])]))"
            )
        )

    for test in tests:
        line = test.timeline
        assert line is not None
        columns = [
            column for column in (line.seconds, line.unreclaimable_bytes, line.file_bytes, line.vram_bytes) if column
        ]
        assert len(columns) == len(unpacked[test.nodeid])
        for column, read in zip(columns, unpacked[test.nodeid], strict=True):
            finest = 1e-4 if column is line.seconds else 1024
            assert read == pytest.approx(column, rel=0, abs=max(finest, max(column) / 2**30))


@in_a_browser
def test_words_and_outcomes_filter(page: "Page") -> None:
    everything = names(page)

    page.fill("#words", "polyglot serving")
    assert sorted(names(page)) == [
        "test_generates_on_the_gpu[polyglot-ko-1.3b]",
        "test_one_step_is_small[polyglot-ko-1.3b]",
    ]
    assert page.inner_text("#shown") == f"2 of {len(everything)} tests"

    page.fill("#words", "SIGBUS")
    assert names(page) == ["test_reads_shard_3"]

    page.press("#words", "Escape")
    page.locator("#outcomes button", has_text="xfailed").click()
    assert names(page) == ["test_4bit_is_a_quarter[nf4]"]

    page.locator("#outcomes button", has_text="all").click()
    assert names(page) == everything


@in_a_browser
def test_a_heading_sorts_and_sorts_the_other_way(page: "Page") -> None:
    def name(test: TestRecord) -> str:
        return test.nodeid.partition("::")[2]

    peaks = {name(test): test.ram.peak_bytes for test in sample().tests if test.ram}
    (unmeasured,) = (name(test) for test in sample().tests if test.ram is None)
    assert names(page)[0] == "test_float32_fits[polyglot-ko-1.3b]"
    heading = page.locator("#order button", has_text="unreclaimable")

    heading.click()
    assert names(page) == [*sorted(peaks, key=lambda name: -peaks[name]), unmeasured]
    heading.click()
    assert names(page) == [*sorted(peaks, key=lambda name: peaks[name]), unmeasured]


@in_a_browser
def test_the_keyboard_reaches_everything(page: "Page") -> None:
    page.keyboard.press("/")
    page.keyboard.type("test_load.py")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_selector("#tests details[open] canvas")
    page.locator(".chart").focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    read = page.inner_text(".readout")
    values = page.locator(".legend b").all_inner_texts()
    page.keyboard.press("Escape")

    line = sample(points=200).tests[1].timeline
    assert line is not None
    when, _, where = read.partition(" s · ")
    assert float(when) == pytest.approx(line.seconds[2], abs=0.001)
    assert where == "setup, load"
    assert values == [format_size(line.unreclaimable_bytes[2], "MB"), format_size(line.file_bytes[2], "MB")]
    assert page.locator("#tests details[open]").count() == 0
    assert page.evaluate("document.activeElement.textContent").startswith("failed")


@in_a_browser
def test_the_stack_of_a_breach_and_its_moment_are_told(page: "Page") -> None:
    opened_test(page, "test_float32_fits")

    told = page.inner_text("#tests details[open] .detail")

    assert "breach at 4.11 s: max_ram 3396 MB crossed" in told
    assert "Stack at the crossing, yours first" in told
    assert "\n".join(sample().tests[1].stack) in told


@in_a_browser
@pytest.mark.parametrize("number", range(len(sample().tests)))
def test_what_the_record_knows_of_a_test_is_under_it(page: "Page", number: int) -> None:
    test = sample().tests[number]
    known = [*test.stack, *test.notes, *(trial.call for trial in test.trials), *(phase.name for phase in test.phases)]
    known += [*(device.device for device in test.vram), *(budget.limit for budget in test.budgets)]
    known += [*(test.diagnosis.lines if test.diagnosis else ()), test.ending.note, test.ending.place or ""]
    known += [format_size(size, "MB") for size in test.run_peaks_bytes] + [
        format_size(rank.peak_bytes) for rank in test.ranks
    ]
    known += [test.model.source, f"{test.model.parameters:,}"] if test.model else []
    known += [f"{phase.phase} {phase.step}" for memory in test.steps for phase in memory.phases]
    known += [f"{kind} {format_size(size)}" for memory in test.steps for kind, size in memory.largest_by_kind.items()]
    known += [test.baseline.sentence] if test.baseline else []

    page.locator("#tests summary", has_text=test.nodeid.partition("::")[2]).click()
    page.wait_for_selector(".detail")

    told = page.locator(".detail").evaluate("(detail) => detail.textContent")
    assert [text for text in known if text not in told] == []


@in_a_browser
def test_a_chart_that_is_drawn_moves_nothing(page: "Page") -> None:
    height = "document.querySelector('#tests details').getBoundingClientRect().height"
    page.evaluate("document.querySelector('#tests details').open = true")
    page.wait_for_selector(".detail", state="attached")
    before = page.evaluate(height)
    page.wait_for_selector("canvas")

    assert page.evaluate(height) == before > 300


@in_a_browser
@pytest.mark.parametrize("width", [320, 390, 700, 1000])
def test_nothing_is_wider_than_the_screen(browser: "Browser", file: Path, width: int) -> None:
    with opened(browser, file, viewport={"width": width, "height": 740}, is_mobile=width < 500) as page:
        page.evaluate("document.querySelectorAll('#tests details, #circumstances').forEach((one) => (one.open = true))")
        page.wait_for_selector("canvas")
        wide = page.evaluate("document.documentElement.scrollWidth")
        chart = page.locator("canvas").first.bounding_box()

    assert wide == width
    assert chart is not None
    assert width * 0.7 < chart["width"] <= width


@in_a_browser
def test_colors_follow_the_system_and_the_button(browser: "Browser", file: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, file, color_scheme="dark") as page:
        dark = page.evaluate(ground)
        opened_test(page, "test_float32_fits")
        drawn = page.evaluate("document.querySelector('canvas').toDataURL()")
        page.click("#theme")
        light = page.evaluate(ground)
        page.evaluate("() => new Promise(requestAnimationFrame)")
        redrawn = page.evaluate("document.querySelector('canvas').toDataURL()")
        page.click("#theme")

        assert page.evaluate(ground) == dark != light
        assert drawn != redrawn


@in_a_browser
def test_an_address_may_name_a_test(browser: "Browser", file: Path) -> None:
    with opened(browser, file, fragment="#tests/test_quantized.py::test_4bit_is_a_quarter[nf4]") as page:
        page.wait_for_selector("#tests details[open] canvas")

        assert page.inner_text("#tests details[open] .name").endswith("test_4bit_is_a_quarter[nf4]")


@in_a_browser
def test_hostile_text_is_shown_as_it_is(browser: "Browser", tmp_path: Path) -> None:
    record = hostile()
    with opened(browser, written(record, tmp_path), **PHONE) as page:
        page.click("#tests summary")
        page.wait_for_selector("pre")
        shown = page.evaluate("document.querySelector('pre').textContent")

        # what is not Unicode at all comes back from the browser as U+FFFD
        assert shown.replace("\ufffd", "\ud800") == "\n".join(record.tests[0].stack)
        assert page.evaluate("document.scripts.length") == 3


@in_a_browser
def test_sizes_read_as_in_every_other_report(page: "Page") -> None:
    sizes = [0, 1, 999, 999.5, 1000, 12_345, 99_949, 999_500, 1_234_567, 123_456_789, 5 * 10**9, 7 * 10**12, -20_480]
    wanted = [format_size(size, unit) for unit in (None, "MB", "GiB") for size in sizes]

    assert (
        page.evaluate(
            "(sizes) => [null, 'MB', 'GiB'].flatMap((unit) => sizes.map((size) => formatSize(size, unit)))", sizes
        )
        == wanted
    )
