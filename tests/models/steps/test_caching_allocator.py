"""The model of torch's caching allocator: sequences worked out by hand from its rules, and laws that hold for all."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.models.steps.caching_allocator import BLOCK_BYTES, MIB, Block, CachingAllocator


def reserved(*sizes: int) -> int:
    allocator = CachingAllocator()
    for size in sizes:
        allocator.allocate(size)
    return allocator.reserved_bytes


@pytest.mark.parametrize(
    ("sizes", "segments"),
    [
        ((1,), 2 * MIB),
        ((MIB, MIB), 2 * MIB),
        ((MIB, MIB, 1), 4 * MIB),
        ((512,) * 4096, 2 * MIB),
        ((MIB + 1,), 20 * MIB),
        ((4 * MIB,) * 5, 20 * MIB),
        ((4 * MIB,) * 6, 40 * MIB),
        ((10 * MIB - 512,), 20 * MIB),
        ((10 * MIB,), 10 * MIB),
        ((10 * MIB + 1,), 12 * MIB),
        ((1, MIB + 1), 22 * MIB),
    ],
    ids=str,
)
def test_segments_follow_the_size_of_the_request(sizes: tuple[int, ...], segments: int) -> None:
    assert reserved(*sizes) == segments


def test_a_rest_of_one_mebibyte_of_a_large_block_is_not_split_off() -> None:
    assert reserved(11 * MIB, 512 * 1024) == 12 * MIB + 2 * MIB


def test_a_rest_above_one_mebibyte_serves_a_later_request() -> None:
    assert reserved(10 * MIB + 512, MIB + 1) == 12 * MIB
    assert reserved(9 * MIB, 9 * MIB) == 20 * MIB
    assert reserved(9 * MIB, 9 * MIB, 2 * MIB) == 20 * MIB


def test_free_neighbors_are_merged() -> None:
    allocator = CachingAllocator()
    first, second, *_ = [allocator.allocate(4 * MIB) for _ in range(5)]

    allocator.free(first)
    allocator.free(second)
    allocator.allocate(8 * MIB)

    assert allocator.reserved_bytes == 20 * MIB


def test_free_blocks_apart_serve_nothing_larger_than_one_of_them() -> None:
    allocator = CachingAllocator()
    first, _, third, *_ = [allocator.allocate(4 * MIB) for _ in range(5)]

    allocator.free(first)
    allocator.free(third)
    allocator.allocate(8 * MIB)

    assert allocator.reserved_bytes == 40 * MIB
    assert allocator.allocated_bytes == 20 * MIB


def test_the_smallest_free_block_that_is_large_enough_is_taken() -> None:
    allocator = CachingAllocator()
    large, small = allocator.allocate(40 * MIB), allocator.allocate(12 * MIB)
    allocator.free(large)
    allocator.free(small)

    taken = allocator.allocate(12 * MIB)

    assert taken is small
    assert allocator.allocate(40 * MIB) is large
    assert allocator.reserved_bytes == 52 * MIB


Request = int | float
"""Bytes to allocate, or which of the blocks in use to free, as a share of their number."""

requests: st.SearchStrategy[list[Request]] = st.lists(
    st.one_of(st.integers(1, 4 * MIB), st.integers(1, 2000), st.integers(1, 64 * MIB), st.floats(0, 0.999)), max_size=60
)


def replay(wanted: list[Request]) -> list[tuple[int, int, list[Block], CachingAllocator]]:
    """Reserved and allocated bytes, and the blocks in use, after each request."""
    allocator, blocks, states = CachingAllocator(), list[Block](), []
    for each in wanted:
        if isinstance(each, int):
            blocks.append(allocator.allocate(each))
        elif blocks:
            allocator.free(blocks.pop(int(each * len(blocks))))
        states.append((allocator.reserved_bytes, allocator.allocated_bytes, list(blocks), allocator))
    return states


@given(requests)
def test_what_is_reserved_covers_what_is_allocated_and_never_falls(wanted: list[Request]) -> None:
    before = 0
    for reserved_bytes, allocated, blocks, _ in replay(wanted):
        assert reserved_bytes >= allocated >= BLOCK_BYTES * len(blocks)
        assert reserved_bytes >= before
        assert reserved_bytes % (2 * MIB) == 0
        before = reserved_bytes


@given(requests)
def test_blocks_in_use_do_not_overlap(wanted: list[Request]) -> None:
    for reserved_bytes, _, blocks, _ in replay(wanted)[-1:]:
        spans = sorted((block.address, block.address + block.nbytes) for block in blocks)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        assert all(0 <= start < end <= reserved_bytes for start, end in spans)


@given(requests)
def test_what_was_freed_serves_the_same_requests_again(wanted: list[Request]) -> None:
    for reserved_bytes, _, blocks, allocator in replay(wanted)[-1:]:
        largest = max((block.nbytes for block in blocks), default=None)
        for block in blocks:
            allocator.free(block)
        assert allocator.allocated_bytes == 0
        if largest is not None:
            allocator.allocate(largest)
            assert allocator.reserved_bytes == reserved_bytes
