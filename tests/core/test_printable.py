"""Text of others in sentences of ours."""

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.printable import excerpt, printable, some_of

ANY = st.text(st.characters(exclude_categories=()))


@given(ANY)
def test_nothing_is_left_that_a_terminal_would_obey_or_an_encoding_refuse(text: str) -> None:
    shown = printable(text)

    assert shown.isprintable()
    assert shown.encode("utf-8")[:0] == b""


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_what_prints_is_left_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(ANY)
def test_to_make_it_printable_twice_changes_nothing(text: str) -> None:
    assert printable(printable(text)) == printable(text)


def test_escapes_are_those_of_repr() -> None:
    assert printable("\x1b[2J\n\t\x9b\u202e\ud800") == r"\x1b[2J\n\t\x9b\u202e\ud800"


def test_an_excerpt_says_that_there_is_more() -> None:
    assert excerpt("x" * 100) == "x" * 100
    assert excerpt("x" * 101) == "x" * 100 + "…"
    assert excerpt("\x1b\x1b", limit=1) == r"\x1b…"


def test_of_many_names_three_are_told() -> None:
    assert some_of(["a", "b"]) == "a, b"
    assert some_of(["a", "b\n", "c", "d", "e"]) == r"a, b\n, c and 2 more"


def test_an_error_about_a_checkpoint_has_nothing_that_a_terminal_would_obey() -> None:
    assert str(CheckpointError("\x1b[31mred")) == r"\x1b[31mred"
