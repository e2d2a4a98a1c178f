"""Make the pictures of the documentation: a report light, dark and on a phone, and the history page.

    python tools/pictures.py

Needs Playwright and Chromium. The sessions are example data of ``tests/reports``.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from pytest_llmmem.reports import html
from tests.reports import browser, test_history
from tests.reports.records import sample
from tests.reports.shapes import uneven

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
DESK = {"viewport": {"width": 1180, "height": 1010}, "device_scale_factor": 1}
PHONE = {"viewport": {"width": 390, "height": 1240}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
KINDS = {
    "report-light": ("report", {**DESK, "color_scheme": "light"}),
    "report-dark": ("report", {**DESK, "color_scheme": "dark"}),
    "report-phone": ("report", {**PHONE, "color_scheme": "light"}),
    "history": ("history", {**DESK, "color_scheme": "light"}),
}
"""By the picture's name: the page, and how it is looked at."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=PICTURES)
    folder = parser.parse_args().folder
    if browser.MISSING:
        print(f"no pictures: there is no {browser.MISSING} here")
        return 1
    with tempfile.TemporaryDirectory() as made, browser.launched() as chromium:
        pages = {"report": report_in(Path(made)), "history": test_history.written(history_in(Path(made)))}
        for name, (kind, context) in KINDS.items():
            with browser.opened(chromium, pages[kind], **context) as page:
                page.locator("#tests summary").first.click()
                page.wait_for_selector("canvas")
                page.locator("#tests .chart").hover()
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=folder / f"{name}.png")
    return 0


def report_in(folder: Path) -> Path:
    """The page of one session."""
    record = sample(points=600)
    record = replace(record, tests=tuple(uneven(test, seed=1) for test in record.tests))
    file = folder / "report.html"
    file.write_text(html.render(record), encoding="utf-8")
    return file


def history_in(folder: Path) -> Path:
    """A folder of reports."""
    return test_history.folder_of(test_history.sample(), folder / "history")


if __name__ == "__main__":
    sys.exit(main())
