"""A model of torch's caching allocator on a GPU: the segments that it reserves for a sequence of tensors.

The rules are those of ``CUDACachingAllocator`` with its defaults and one stream, on a card that is never full: nothing is given
back to the driver. It has been compared with no card.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Final

BLOCK_BYTES: Final = 512
"""Every request is rounded up to a multiple of it: ``kMinBlockSize``."""

MIB: Final = 2**20

_SMALL: Final = MIB
"""The largest request of the small pool, and the remainder above which a large block is split: ``kSmallSize``."""

_SMALL_SEGMENT: Final = 2 * MIB
"""``kSmallBuffer``."""

_LARGE_SEGMENT: Final = 20 * MIB
"""``kLargeBuffer``."""

_OWN_SEGMENT: Final = 10 * MIB
"""From this size on, a request that fits nowhere gets a segment of its own: ``kMinLargeAlloc``."""

_SEGMENT_ROUNDING: Final = 2 * MIB
"""Size to which such a segment is rounded up: ``kRoundLarge``."""


@dataclass(eq=False, slots=True)
class Block:
    """A part of a segment, free or in use."""

    address: int
    nbytes: int
    is_small: bool
    is_free: bool = False
    before: "Block | None" = None
    """The neighbors in the same segment."""
    after: "Block | None" = None

    @property
    def order(self) -> tuple[int, int]:
        """Of the free blocks that are large enough, the smallest one is taken, and of equal ones the first."""
        return self.nbytes, self.address


class CachingAllocator:
    """Segments, and the blocks into which they are split."""

    def __init__(self) -> None:
        self.reserved_bytes = 0
        """Bytes of all segments. It never falls, so it is its own peak."""
        self.allocated_bytes = 0
        """Bytes of all blocks in use, as they were asked for, rounded."""
        self._free: dict[bool, list[tuple[tuple[int, int], Block]]] = {True: [], False: []}
        """The free blocks of the small and of the large pool, by their order."""
        self._asked: dict[Block, int] = {}

    def allocate(self, nbytes: int) -> Block:
        """The block of a request of one byte or more."""
        size = rounded(nbytes, BLOCK_BYTES)
        is_small = size <= _SMALL
        block = self._take(size, is_small=is_small) or self._new_segment(size, is_small=is_small)
        rest = block.nbytes - size
        if rest >= BLOCK_BYTES if is_small else rest > _SMALL:
            self._split(block, size)
        block.is_free = False
        self._asked[block] = size
        self.allocated_bytes += size
        return block

    def free(self, block: Block) -> None:
        """Take a block back; it is merged with free neighbors."""
        self.allocated_bytes -= self._asked.pop(block)
        if (before := block.before) is not None and before.is_free:
            self._leave(before)
            before.nbytes += block.nbytes
            before.after, block = block.after, before
            if block.after is not None:
                block.after.before = block
        if (after := block.after) is not None and after.is_free:
            self._leave(after)
            block.nbytes += after.nbytes
            block.after = after.after
            if block.after is not None:
                block.after.before = block
        self._keep(block)

    def _take(self, size: int, *, is_small: bool) -> Block | None:
        free = self._free[is_small]
        place = bisect_left(free, (size, 0), key=lambda each: each[0])
        return free.pop(place)[1] if place < len(free) else None

    def _new_segment(self, size: int, *, is_small: bool) -> Block:
        if is_small:
            nbytes = _SMALL_SEGMENT
        elif size < _OWN_SEGMENT:
            nbytes = _LARGE_SEGMENT
        else:
            nbytes = rounded(size, _SEGMENT_ROUNDING)
        block = Block(address=self.reserved_bytes, nbytes=nbytes, is_small=is_small)
        self.reserved_bytes += nbytes
        return block

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.address + size, block.nbytes - size, block.is_small, before=block, after=block.after)
        if rest.after is not None:
            rest.after.before = rest
        block.nbytes, block.after = size, rest
        self._keep(rest)

    def _keep(self, block: Block) -> None:
        block.is_free = True
        insort(self._free[block.is_small], (block.order, block), key=lambda each: each[0])

    def _leave(self, block: Block) -> None:
        free = self._free[block.is_small]
        del free[bisect_left(free, block.order, key=lambda each: each[0])]


def rounded(nbytes: int, unit: int) -> int:
    """The next multiple of a unit."""
    return -(-nbytes // unit) * unit
