"""Measure the size of the HTML report, and the time to build and to open it.

    python bench/html_report.py

Opening is from asking Chromium for the file to the first picture with all its rows; it is left out where Playwright or
Chromium is missing. The file is not called html.py: scripts here would import it in place of the standard library's.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from _run import table, verdict

from pytest_llmmem.reports import html
from tests.reports import browser
from tests.reports.records import large

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BUILT_S = 2.0
OPENED_S = 1.0
SIZE_BYTES = 1_500_000
TWO_PICTURES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=500)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    record = large(tests=options.tests, points=options.points)

    built_s = []
    for _ in range(options.rounds):
        began = time.perf_counter()
        page = html.render(record)
        built_s.append(time.perf_counter() - began)
    of_200 = len(html.render(large(tests=200, points=options.points)).encode())

    rows = [
        row(f"{options.tests} tests of {options.points} points, built", statistics.median(built_s), BUILT_S, "s"),
        row("200 of them, size", of_200 / 1e6, SIZE_BYTES / 1e6, "MB"),
    ]
    if browser.MISSING is None:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, browser.launched() as chromium:
            file = Path(folder, "report.html")
            file.write_text(page, encoding="utf-8")
            opened_s = [time_opening(chromium, file, options.tests) for _ in range(options.rounds)]
        rows.append(row("opened", statistics.median(opened_s), OPENED_S, "s"))
    table(("", "measured", "goal", "ratio", "met"), *rows)
    print(f"\n{len(page) / 1e6:.2f} MB for {options.tests} tests")
    if browser.MISSING:
        print(f"opening was not measured: there is no {browser.MISSING}")


def time_opening(chromium: "Browser", file: Path, tests: int) -> float:
    with chromium.new_context() as context:
        page = context.new_page()
        began = time.perf_counter()
        page.goto(file.as_uri(), wait_until="commit")
        page.wait_for_function("(tests) => document.querySelectorAll('#tests > li').length === tests", arg=tests)
        page.evaluate(TWO_PICTURES)
        return time.perf_counter() - began


def row(what: str, measured: float, goal: float, unit: str) -> tuple[str, ...]:
    return what, f"{measured:.2f} {unit}", f"<= {goal} {unit}", f"{measured / goal:.2f}", verdict(measured <= goal)


if __name__ == "__main__":
    main()
