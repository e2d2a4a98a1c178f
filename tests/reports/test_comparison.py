"""Tables are aligned in a terminal, and whole in Markdown whatever a node id has in it."""

from pytest_llmmem.baselines.compare import HEADER, compare
from pytest_llmmem.baselines.tolerance import parse_tolerance
from pytest_llmmem.reports.comparison import table
from tests.baselines.records import baseline, record

TOLERANCE = parse_tolerance("5% + 16MB")


def rows():
    grew = compare(
        baseline(2670, phases={"load": 17}), record("test_x.py::test_a[x|y]", 3100, phases={"load": 440}), TOLERANCE
    )
    shrank = compare(baseline(100), record("test_x.py::test_b", 10), TOLERANCE)
    new = compare(None, record("test_x.py::test_c", 7), TOLERANCE)
    return [row for each in (grew, shrank, new) for row in each.rows()]


def test_the_text_is_aligned():
    assert list(table(HEADER, rows())) == [
        "          before    after  difference        of             most of it in  test",
        "grew     2670 MB  3100 MB     +430 MB  +16%  unreclaimable  load           test_x.py::test_a[x|y]",
        "shrank  100.0 MB  10.0 MB    -90.0 MB  -90%  unreclaimable                 test_x.py::test_b",
        "new               7.00 MB                    unreclaimable                 test_x.py::test_c",
    ]


def test_a_column_with_nothing_in_it_takes_no_room():
    assert list(table(("runs", "", "test"), [("3", "", "a")])) == ["runs  test", "   3  a"]


def test_markdown_is_a_table_of_its_own():
    assert list(table(HEADER, rows(), format="markdown")) == [
        "|  | before | after | difference |  | of | most of it in | test |",
        "|---|--:|--:|--:|--:|---|---|---|",
        r"| grew | 2670 MB | 3100 MB | +430 MB | +16% | unreclaimable | load | `test_x.py::test_a[x\|y]` |",
        "| shrank | 100.0 MB | 10.0 MB | -90.0 MB | -90% | unreclaimable |  | `test_x.py::test_b` |",
        "| new |  | 7.00 MB |  |  | unreclaimable |  | `test_x.py::test_c` |",
    ]


def test_a_backtick_and_a_line_break_stay_in_their_cell():
    *_, row = table(("test", "budget"), [("a[`x`]\nb", "")], format="markdown")

    assert row == "| `` a[`x`] b `` |  |"


def test_no_rows_are_no_table():
    assert list(table(HEADER, [])) == list(table(HEADER, [], format="markdown")) == []
