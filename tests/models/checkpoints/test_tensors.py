"""Sizes of tensors and their dtypes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.models.checkpoints.tensors import BY_CODE, BY_STORAGE, DTYPES, nbytes_of, tensor


@given(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 64), max_size=4).map(tuple))
def test_a_tensor_takes_the_packed_bytes_of_its_elements(dtype: str, shape: tuple[int, ...]) -> None:
    made = tensor("t", dtype, shape)

    assert made.nbytes == -(-made.elements * DTYPES[dtype].bits // 8)


def test_every_dtype_is_found_again_under_each_of_its_names() -> None:
    assert {dtype.name for dtype in BY_CODE.values()} == set(DTYPES)
    assert all(dtype.storage == storage for storage, dtype in BY_STORAGE.items())


def test_a_name_that_is_no_dtype_is_answered_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"'fp16' is not a dtype: write one of float64, float32"):
        nbytes_of(1, "fp16")
