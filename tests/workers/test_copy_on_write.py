"""Inherited pages that a forked worker writes to."""

import gc
import json
import mmap
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.capabilities import missing

if lacking := missing("forked workers"):
    pytest.skip(lacking, allow_module_level=True)

from pytest_llmmem import probes
from pytest_llmmem.workers.copy_on_write import InheritedPages

MB = 1_000_000
INHERITED = 40 * MB


def in_a_fork(body: Callable[[], Any]) -> Any:
    """Its result. In a session of a thousand tests the fork itself copies a megabyte as it runs: compare with an idle one."""
    read, write = os.pipe()
    gc.freeze()  # as before a worker is forked: a collection would copy what a session of a thousand tests has left
    if not (child := os.fork()):
        os.write(write, json.dumps(body()).encode())
        os._exit(0)
    os.close(write)
    with open(read, encoding="utf-8") as answer:
        told = answer.read()
    os.waitpid(child, 0)
    gc.unfreeze()
    return json.loads(told)


@pytest.mark.parametrize("counts_all", [False, True])
def test_pages_written_to_before_the_beginning_are_not_counted_and_those_after_are(counts_all: bool) -> None:
    memory = mmap.mmap(-1, INHERITED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    write(memory, 0, INHERITED)
    mappings = probes.mappings()

    def body(written: int) -> list[int]:
        reader = probes.open_memory(os.getpid(), mappings.files)
        write(memory, 0, 10 * MB)
        pages = InheritedPages(mappings, reader.read_pages(), counts_all=counts_all)
        before = pages.copied(reader.read_pages())
        write(memory, 10 * MB, 10 * MB + written)
        after = pages.copied(reader.read_pages())
        return [before.bytes, before.error_bytes, after.bytes, after.error_bytes]

    _, _, idle, idle_error = in_a_fork(partial(body, 0))
    before, before_error, after, after_error = in_a_fork(partial(body, 20 * MB))

    assert before + before_error <= idle + idle_error + MB
    assert abs(after - idle - 20 * MB) <= idle_error + MB / 2
    assert after_error == 0


@pytest.mark.parametrize("counts_all", [False, True])
def test_few_copies_are_within_the_error_of_their_estimate(counts_all: bool) -> None:
    memory = mmap.mmap(-1, INHERITED, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    write(memory, 0, INHERITED)
    mappings = probes.mappings()

    def body(written: int) -> list[int]:
        reader = probes.open_memory(os.getpid(), mappings.files)
        pages = InheritedPages(mappings, reader.read_pages(), counts_all=counts_all)
        write(memory, 0, written)
        copied = pages.copied(reader.read_pages())
        return [copied.bytes, copied.error_bytes]

    idle, _ = in_a_fork(partial(body, 0))
    copied, error = in_a_fork(partial(body, 4 * MB))

    assert abs(copied - idle - 4 * MB) <= error + MB / 2
    assert (error == 0) == counts_all


def write(memory: mmap.mmap, begin: int, end: int) -> None:
    for page in range(begin, end, mmap.PAGESIZE):
        memory[page] = 1
