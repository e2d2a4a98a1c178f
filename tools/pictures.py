"""Pictures of the HTML report for the documentation: light, dark, and on a phone.

    python tools/pictures.py

Needs Playwright and Chromium. The session is a made one: ``tests/reports/records.py``.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from pytest_llmmem.reports import html
from tests.reports import browser
from tests.reports.records import sample
from tests.reports.shapes import uneven

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
DESK = {"viewport": {"width": 1180, "height": 1010}, "device_scale_factor": 1}
PHONE = {"viewport": {"width": 390, "height": 1240}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
KINDS = {
    "report-light": {**DESK, "color_scheme": "light"},
    "report-dark": {**DESK, "color_scheme": "dark"},
    "report-phone": {**PHONE, "color_scheme": "light"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=PICTURES)
    folder = parser.parse_args().folder
    if browser.MISSING:
        print(f"no pictures: there is no {browser.MISSING} here")
        return 1
    record = sample(points=600)
    record = replace(record, tests=tuple(uneven(test, seed=1) for test in record.tests))
    with tempfile.TemporaryDirectory() as made, browser.launched() as chromium:
        file = Path(made, "report.html")
        file.write_text(html.render(record), encoding="utf-8")
        for name, context in KINDS.items():
            with browser.opened(chromium, file, **context) as page:
                page.locator("#tests summary").first.click()
                page.wait_for_selector("canvas")
                page.locator("#tests .chart").hover()
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=folder / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
