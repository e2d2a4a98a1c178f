"""Several sessions as one record."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmmem.core.records import CellRecord, EarlierCell, SessionRecord
from pytest_llmmem.reports import html, markdown, merging
from tests.baselines.records import record, session
from tests.reports.browser import MISSING, launched, opened

if TYPE_CHECKING:
    from playwright.sync_api import Page


def two_environments() -> SessionRecord:
    old = session(record(peak=10), transformers="4.57.6")
    new = session(record(peak=20, outcome="failed"))
    return merging.merge(
        [
            (replace(merging.cell_of("llama/old", old), environment="old", model="llama", load="default"), old),
            (replace(merging.cell_of("llama/new", new), environment="new", model="llama", load="default"), new),
        ]
    )


def test_equal_node_ids_of_two_cells_stay_apart() -> None:
    merged = two_environments()

    assert [test.full_name for test in merged.tests] == [
        "llama/old: tests/test_x.py::test_a",
        "llama/new: tests/test_x.py::test_a",
    ]
    assert [merged.environment_of(test)["transformers"] for test in merged.tests] == ["4.57.6", "5.23.0"]
    assert merged.environment["torch"] == "2.13.0+cpu"
    assert "transformers" not in merged.environment


def test_a_merged_record_survives_its_json() -> None:
    merged = two_environments()

    assert SessionRecord.from_json(json.loads(json.dumps(merged.to_json()))) == merged


def test_a_report_that_is_not_merged_has_no_cells() -> None:
    assert session(record()).to_json().keys() == {"schema", "environment", "interrupted", "tests"}


def test_merging_again_keeps_the_cells() -> None:
    first = two_environments()
    alone = session(record(peak=30))

    merged = merging.merge(
        [
            (merging.cell_of("night", first), first),
            (replace(merging.cell_of("mpt/new", alone), environment="new"), alone),
        ]
    )

    assert [cell.name for cell in merged.cells] == ["llama/old", "llama/new", "mpt/new"]
    assert merged.tests[2].environment == merged.tests[1].environment
    assert len(merged.environments) == 2


def test_the_same_sweep_on_two_runners_stays_apart() -> None:
    once = two_environments()

    merged = merging.merge([(merging.cell_of(name, once), once) for name in ("4.57", "5.23")])

    assert [cell.name for cell in merged.cells] == [
        "4.57/llama/old", "4.57/llama/new", "5.23/llama/old", "5.23/llama/new",
    ]  # fmt: skip
    assert [cell.environment for cell in merged.cells] == ["4.57/old", "4.57/new", "5.23/old", "5.23/new"]
    assert [test.cell for test in merged.tests] == [cell.name for cell in merged.cells]
    assert len(merged.environments) == 4


def test_the_same_report_twice_is_refused() -> None:
    once = two_environments()

    with pytest.raises(ValueError, match="two reports have a cell 'a/llama/old': merge each report once"):
        merging.merge([(merging.cell_of("a", once), once)] * 2)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.json", "b.json"], ["a", "b"]),
        (["out/bert/memory.json", "out/llama/memory.json"], ["bert", "llama"]),
        (["out/memory.json"], ["memory"]),
        (["a/x/memory.json", "b/y/memory.json"], ["a/x", "b/y"]),
        (["a/memory.json", "memory.json"], ["a/memory", "memory"]),
    ],
)
def test_a_cell_is_named_by_what_the_paths_do_not_share(paths: list[str], names: list[str]) -> None:
    assert merging.names_of([Path(path) for path in paths]) == names


def test_the_summary_has_the_matrix_and_says_what_is_missing() -> None:
    merged = two_environments()
    nowhere = CellRecord(
        name="mpt/old", outcome="missing", model="mpt", load="default", environment="old", sentence="needs 9 | GB"
    )

    page = markdown.render(replace(merged, cells=(*merged.cells, nowhere)))

    assert "| model | old · default | new · default |" in page
    assert "| llama | ✓ 110 MB | ✕ 120 MB |" in page
    assert "| mpt | ? |  |" in page
    assert "- `mpt/old`: needs 9 \\| GB" in page


@pytest.mark.skipif(MISSING is not None, reason=f"needs {MISSING}")
def test_a_cell_of_the_page_shows_its_tests(tmp_path: Path) -> None:
    file = tmp_path / "all.html"
    file.write_text(html.render(two_environments()), encoding="utf-8")

    with launched() as browser, opened(browser, file) as page:
        before = listed(page)
        page.click("#cells button.bad")
        shown = listed(page)
        page.click("#cells button.bad")
        after = listed(page)

    assert len(before) == len(after) == 2
    assert len(shown) == 1
    assert "llama/new" in shown[0]


@pytest.mark.skipif(MISSING is not None, reason=f"needs {MISSING}")
def test_a_cell_of_the_page_has_its_peaks_over_sweeps(tmp_path: Path) -> None:
    old, new = two_environments().cells
    merged = replace(two_environments(), cells=(with_earlier(old, 112_000_000), with_earlier(new, 60_000_000)))
    file = tmp_path / "all.html"
    file.write_text(html.render(merged), encoding="utf-8")

    with launched() as browser, opened(browser, file) as page:
        lines = page.locator("#cells .spark")
        told = [lines.nth(number).get_attribute("aria-label") for number in range(lines.count())]
        grown = page.locator("#cells small.bad").all_inner_texts()

    assert told == [
        "Peak from sweep to sweep: 2026-11-28T02-47-10Z 112 MB, now 110 MB",
        "Peak from sweep to sweep: 2026-11-28T02-47-10Z 60.0 MB, now 120 MB",
    ]
    assert [text.strip() for text in grown] == ["+100%"]


def with_earlier(cell: CellRecord, peak_bytes: int) -> CellRecord:
    return replace(cell, earlier=(EarlierCell(sweep="2026-11-28T02-47-10Z", outcome="passed", peak_bytes=peak_bytes),))


def listed(page: "Page") -> list[str]:
    return page.locator("#tests .name").all_inner_texts()
