"""Pickles of ``torch.save``: what is read of them, and what is refused."""

import pickle
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_llmmem.models.checkpoints.bounds import TooMuch
from pytest_llmmem.models.checkpoints.tensors import tensor
from pytest_llmmem.models.checkpoints.torch_file import pickled
from pytest_llmmem.models.checkpoints.torch_pickle import read_state_dict

TENSORS = (tensor("a", "float16", (2, 3)), tensor("b", "int64", (2**40, 0)), tensor("c", "float32", ()))

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def plain(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What may stand beside tensors."""
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.one_of(kinds),
        lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(TEXTS, inner),
        max_leaves=10,
    )


deterministic = settings(derandomize=True, max_examples=300)


@deterministic
@given(
    # protocol 2 has no bytes: it calls a function that makes them
    st.tuples(st.just(2), st.dictionaries(TEXTS | st.integers(-5, 300), plain()))
    | st.tuples(st.sampled_from([3, 4]), st.dictionaries(TEXTS, plain(st.binary()))),
    st.booleans(),
)
def test_data_beside_tensors_is_passed_over(data: tuple[int, dict[Any, Any]], ordered: bool) -> None:
    protocol, state = data

    assert read_state_dict(pickle.dumps(OrderedDict(state) if ordered else state, protocol)).tensors == ()


def test_an_integer_of_any_length_is_no_tensor() -> None:
    with pytest.raises(ValueError, match="the operation 0x8b"):  # LONG4, for more than 255 bytes: no size has as many
        read_state_dict(pickle.dumps({"a": 2**3000}))


def test_operations_are_counted() -> None:
    assert read_state_dict(b"\x80\x02}.").operations == 2


@deterministic
@given(st.data())
def test_a_pickle_that_was_changed_is_a_dict_or_refused(data: st.DataObject) -> None:
    whole = pickled(TENSORS)
    at = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(at, min(len(whole), at + 8)))
    changed = whole[:at] + data.draw(st.binary(max_size=8)) + whole[end:]

    assert answer(changed).isprintable()


OPERATIONS = [
    *(getattr(pickle, name) for name in pickle.__all__ if name.isupper() and isinstance(getattr(pickle, name), bytes)),
    b"\x00", b"\x01", b"\x02", b"a", b"\xff\xff\xff\x7f", b"\x01\x00\x00\x00a",
    b"ctorch\nHalfStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n",
    b"ccollections\nOrderedDict\n", b"K\x01", b"X\x01\x00\x00\x00k",
]  # fmt: skip


@settings(derandomize=True, max_examples=1000)
@given(st.lists(st.sampled_from(OPERATIONS)).map(b"".join))
@example(b"}K\x01\x85\x85K\x01u.")
@example(b"ctorch._utils\n_rebuild_parameter\nK\x01R.")
@example(b"N" + b"\x85" * 10**6 + b"N\x93.")
def test_any_row_of_operations_is_a_dict_or_refused(row: bytes) -> None:
    assert answer(row).isprintable()
    assert answer(row + b".").isprintable()


def answer(content: bytes) -> str:
    """Why it is refused; nothing else is ever raised."""
    try:
        read_state_dict(content)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "its pickle is damaged"),
        (b"\x80\x02}", "its pickle is damaged"),
        (b"\x80\x02}q\x00h\x01.", "its pickle is damaged"),
        (b"\x80\x02}X\x00\x00\x00\x80a.", "its pickle is damaged"),
        (b"\x80\x02X\x01\x00\x00\x00\xff.", "its pickle is damaged"),
        (b"\x80\x02K\x01.", "it holds a int, not a dict of tensors"),
        (b"\x80\x02).", "it holds a tuple, not a dict of tensors"),
        (b"\x80\x02}]s.", "its pickle is damaged"),
        (b"\x80\x02}]K\x01s.", "a key that is no name"),
        (b"\x80\x02}N\x85K\x01s.", "a key that is no name"),
        (b"\x80\x02}cos\nsystem\n", "it asks for os.system"),
        (b"\x80\x02}ctorch\nsave\n", "it asks for torch.save"),
        (b"\x80\x02}ctorch._utils\n_rebuild_tensor_v2\n)R.", "a call that makes no tensor"),
        (b"\x80\x02}ctorch._utils\n_rebuild_tensor_v2\nK\x01R.", "a call without arguments"),
        (b"\x80\x02}ctorch\nHalfStorage\n)R.", "a call that makes no tensor"),
        (b"\x80\x02}K\x01Q.", "a reference to something that is no storage"),
        (b"\x80\x02}N\x93.", "a function without a name"),
        (b"\x80\x02}(c\n", "its pickle is damaged"),
        (b"\x80\x02}\x82.", "the operation 0x82"),
        (b"\x80\x02}c\x1b[2J\nx\n.", r"it asks for \\x1b\[2J\.x"),
    ],
)
def test_what_is_no_dict_of_tensors_is_told(content: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_state_dict(content)


@pytest.mark.parametrize("shape", [(-1,), (True,), ("2",), ((2,),), 7])
def test_a_shape_that_is_none_is_refused(shape: object) -> None:
    content = pickled(TENSORS[:1]).replace(pickle.dumps((2, 3), 2)[2:-1], pickle.dumps(shape, 2)[2:-1], 1)

    with pytest.raises(ValueError, match=r"a has a dimension of -1|a call that makes no tensor"):
        read_state_dict(content)


def test_work_has_an_end() -> None:
    with pytest.raises(TooMuch, match="a pickle of more than 3,000,000 operations"):
        read_state_dict(b"}" + b"N" * 3_000_000 + b".")
