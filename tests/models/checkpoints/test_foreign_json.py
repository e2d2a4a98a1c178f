"""JSON of others: read as Python reads it, within bounds."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.models.checkpoints.bounds import MAX_JSON_DEPTH, TooMuch
from pytest_llmmem.models.checkpoints.foreign_json import parse, read_object

TRICKY = st.text(st.sampled_from('[]{}",:\\ab\u00e9\U0001f600'), max_size=8)
"""Names with what JSON itself is made of."""

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | TRICKY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TRICKY, inner, max_size=4),
    max_leaves=20,
)

deterministic = settings(derandomize=True, max_examples=300)


@deterministic
@given(VALUES, st.booleans())
def test_what_is_in_bounds_is_read_as_python_reads_it(value: Any, ascii_: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_)

    parsed = parse(text.encode())

    assert parsed.value == value
    assert parsed.repeated == ()


@deterministic
@given(
    depth=st.integers(MAX_JSON_DEPTH - 3, MAX_JSON_DEPTH + 3), names=st.lists(TRICKY, min_size=1), ascii_=st.booleans()
)
def test_depth_is_counted_whatever_the_names_are(depth: int, names: list[str], ascii_: bool) -> None:
    value: Any = names
    for number in range(depth - 1):
        value = {names[number % len(names)]: value} if number % 2 else [names, value]
    text = json.dumps(value, ensure_ascii=ascii_).encode()

    if depth <= MAX_JSON_DEPTH:
        assert parse(text).value == value
    else:
        with pytest.raises(TooMuch, match="more than 64 objects and arrays in each other"):
            parse(text)


@deterministic
@given(
    st.binary()
    | st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b":", b",", b"1", b"\xff"])).map(b"".join)
)
@example(b"[" * 10**6)
@example(b'"' + b"\\" * 999_999 + b'"')
@example(b'{"' + b"]" * 10**5 + b'":' + b"[" * 10**5)
@example(b"[" * 32 + b"]" * 10**6)
def test_any_bytes_are_a_value_or_refused(text: bytes) -> None:
    assert answer(text).isprintable()


def answer(text: bytes) -> str:
    """Why it is refused; nothing else is ever raised."""
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return ""


def test_it_is_refused_before_the_parser_could_run_out_of_stack() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)  # as some projects do: the parser would end the interpreter
    try:
        with pytest.raises(TooMuch):
            parse(b"[" * 300_000 + b"]" * 300_000)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b" " * 20_000_001, "more than 20,000,000 bytes"),
        (b"[" + b"0," * 2_000_000 + b"0]", "more than 2,000,000 brackets, commas, colons and quotes"),
        (b"1" * 101, "a number of more than 100 digits"),
        (b"-" + b"9" * 101, "a number of more than 100 digits"),
    ],
    ids=["bytes", "marks", "digits", "negative"],
)
def test_what_is_out_of_bounds_is_told(text: bytes, what: str) -> None:
    with pytest.raises(TooMuch, match=what):
        parse(text)


def test_a_number_of_100_digits_is_read() -> None:
    assert parse(b"9" * 100).value == 10**100 - 1


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ('{"a": 1, "a": 2}', ("a",)),
        ('[{"a": 1, "b": 2, "b": 3}, {"c": 1, "c": 1, "c": 1}]', ("b", "c")),
        ('{"a": {"a": 1}}', ()),
    ],
)
def test_keys_that_are_there_twice_are_told(text: str, repeated: tuple[str, ...]) -> None:
    assert parse(text.encode()).repeated == repeated


def test_of_a_repeated_key_the_last_value_counts() -> None:
    assert parse(b'{"a": 1, "a": 2}').value == {"a": 2}


@deterministic
@given(
    st.text(
        st.characters(min_codepoint=0xD7FE, max_codepoint=0xE001, exclude_categories=())
        | st.sampled_from('\\u"d8\U0001f600')
    )
)
def test_half_a_surrogate_pair_is_no_text(text: str) -> None:
    encoded = json.dumps(text).encode()  # as escapes, which Python's parser would put together or leave alone
    whole = json.loads(encoded)
    is_text = not any("\ud800" <= each <= "\udfff" for each in whole)

    if is_text:
        assert parse(encoded).value == whole
    else:
        with pytest.raises(ValueError, match="half a surrogate pair"):
            parse(encoded)


def test_infinity_is_a_value_as_in_configs_that_are_published() -> None:
    assert parse(b'{"time_step_limit": [0.0, Infinity]}').value == {"time_step_limit": [0.0, float("inf")]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[1]", "holds a JSON list instead of an object"),
        (b"7", "holds a JSON int instead of an object"),
        (b"\xff\xfe{\0}\0", "is not JSON"),
        ('\ufeff{"a": 1}'.encode(), "is not JSON"),
        (b"[" * 100_000, "more than 64 objects and arrays in each other: no model that is known needs so much"),
    ],
)
def test_a_file_without_an_object_is_refused_with_its_name(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "config.json").write_bytes(content)

    with pytest.raises(CheckpointError, match=rf"config\.json .*{why}"):
        read_object(tmp_path / "config.json")
