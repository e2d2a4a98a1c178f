"""The resident pages of a model, and memory that was freed but not returned to the kernel."""

import gc
import mmap
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Final

from pytest_llmmem import probes
from pytest_llmmem.models.loading.storage import plain_tensors, union

_MALLINFO2: Final = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


def mapped_nbytes(model: Any) -> int | None:
    """Bytes of weights that are mapped from files and not resident in this process, in whole pages; ``None`` if unknown."""
    pages = {
        (tensor.data_ptr() // mmap.PAGESIZE, -(-(tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE))
        for device, tensor in plain_tensors(model)
        if device == "cpu"
    }
    mapped = tuple(_overlaps(union(pages), probes.mapped_files()))
    present_bytes = probes.count_pages(os.getpid(), mapped, "present")
    if present_bytes is None:
        return None
    return sum(end - first for first, end in mapped) * mmap.PAGESIZE - present_bytes


def touch(model: Any) -> None:
    """Read one byte of every page of every weight in host memory, so that all weights are resident."""
    for device, tensor in plain_tensors(model):
        if device == "cpu" and tensor.numel():
            import torch  # an engine's model has no tensors, and may be without torch

            raw = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
            start = tensor.storage_offset() * tensor.element_size()
            end = start + tensor.nbytes
            raw[start : end : mmap.PAGESIZE].sum()
            raw[end - 1].item()


def freed_nbytes() -> int | None:
    """Freed bytes that the C library keeps for later; ``None`` where it does not report them.

    ``fordblks`` of mallinfo2(3), for all arenas: glibc 2.33 and later.
    """
    info = _mallinfo2()
    return None if info is None else info["fordblks"]


def trim() -> None:
    """Collect garbage and return freed memory to the kernel, where the allocator can."""
    gc.collect()
    libc = _libc()
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
        _return_end_of_heap(libc)


def _return_end_of_heap(libc: Any) -> None:
    """Where another allocator has moved the end of the heap (``sbrk``), malloc_trim(3) leaves all that is free before it."""
    if sys.platform != "linux":
        return
    info = _mallinfo2()
    size = info["keepcost"] - 2 * mmap.PAGESIZE if info else 0
    if size <= 0 or not (block := libc.malloc(size)):
        return
    start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
    libc.madvise(start, (block + size - start) // mmap.PAGESIZE * mmap.PAGESIZE, mmap.MADV_DONTNEED)
    libc.free(block)


def _mallinfo2() -> dict[str, int] | None:
    import ctypes

    if not hasattr(libc := _libc(), "mallinfo2"):
        return None

    class Info(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO2)

    libc.mallinfo2.restype = Info
    info = libc.mallinfo2()
    return {name: getattr(info, name) for name in _MALLINFO2}


@cache
def _libc() -> Any:
    """The C library of Linux; ``None`` elsewhere."""
    if sys.platform != "linux":
        return None
    import ctypes

    libc = ctypes.CDLL(None)
    libc.malloc.argtypes, libc.malloc.restype = (ctypes.c_size_t,), ctypes.c_void_p
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    libc.free.argtypes = (ctypes.c_void_p,)
    return libc


def _overlaps(spans: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The intersections of the spans with the other spans."""
    others = list(others)
    for start, end in spans:
        for other_start, other_end in others:
            if max(start, other_start) < min(end, other_end):
                yield max(start, other_start), min(end, other_end)
