"""Compare known allocations with the reported peaks.

    python bench/accuracy.py

Every row is one isolated test that allocates known memory in a way that is hard to measure, minus one that allocates none. A
report is right when it is off by no more than 1 MB and the bound that it prints itself.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from _run import MB, interleave, session, table, verdict

TESTS = """
    import mmap
    import os
    import time

    MB = 1_000_000
    PAGE, HUGE = mmap.PAGESIZE, 2 << 20
    COPIED = bytearray(b"x") * (100 * MB)  # resident in the process that workers are forked from
    FILE = os.path.join(os.path.dirname(__file__), "weights")
    with open(FILE, "wb") as file:
        file.write(os.urandom(MB) * 200)
        file.flush()
        os.fsync(file.fileno())


    def write_pages(memory, size):
        for page in range(0, size, PAGE):
            memory[page] = 1


    def read_pages(memory, size):
        return sum(memory[page] for page in range(0, size, PAGE))


    def map_file(access, **how):
        with open(FILE, "r+b") as file:
            os.posix_fadvise(file.fileno(), 0, 0, how.get("advice", os.POSIX_FADV_NORMAL))
            return mmap.mmap(file.fileno(), 0, access=access)


    def test_nothing():
        pass


    def test_anonymous():
        write_pages(mmap.mmap(-1, 200 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), 200 * MB)


    def test_file_cold():
        read_pages(map_file(mmap.ACCESS_COPY, advice=os.POSIX_FADV_DONTNEED), 200 * MB)


    def test_file_warm():
        with open(FILE, "rb") as file:
            while file.read(MB):
                pass
        read_pages(map_file(mmap.ACCESS_COPY), 200 * MB)


    def test_shared_memory():
        write_pages(mmap.mmap(-1, 200 * MB, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS), 200 * MB)


    def test_spike():
        time.sleep(0.05)
        memory = mmap.mmap(-1, 20 * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, 20 * HUGE, HUGE):
            memory[page] = 1
        memory.close()  # about 2 ms after the first page
        time.sleep(0.05)


    def test_copy_on_write():
        write_pages(COPIED, 100 * MB)


    def test_dirty_shared_file():
        write_pages(map_file(mmap.ACCESS_WRITE), 100 * MB)


    def fork_four(size):
        for _ in range(4):
            if os.fork() == 0:
                memory = mmap.mmap(-1, max(PAGE, size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                write_pages(memory, size)
                time.sleep(0.3)
                os._exit(0)
        for _ in range(4):
            os.wait()


    def test_children():
        fork_four(80 * MB)


    def test_children_alone():
        fork_four(0)
"""
TRUTH = {
    "test_anonymous": {"peak": 200, "peak_resident": 200},
    "test_file_cold": {"peak": 0, "peak_resident": 200, "peak_file": 200},
    "test_file_warm": {"peak": 0, "peak_resident": 200, "peak_file": 200},
    "test_shared_memory": {"peak": 200, "peak_resident": 200},
    "test_spike": {"peak": 41.9, "peak_resident": 41.9},
    "test_copy_on_write": {"peak": 100},
    "test_dirty_shared_file": {"peak": 0, "peak_resident": 100, "peak_file": 100},
    "test_children": {"peak": 320, "peak_resident": 320},
}
"""MB of each number of the report that the allocation decides."""
SLACK = 1 * MB
BESIDE = {"test_children": "test_children_alone"}
"""A forked interpreter copies pages by counting references: they are real, and what this test reports. Others: an empty one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with session(TESTS) as tests:
        runs = interleave({"llmmem": lambda: tests.run("-p", "llmmem", "--llm-isolate=all")}, options.rounds)["llmmem"]
    rows, right = [], 0
    for name, truth in TRUTH.items():
        for key, megabytes in truth.items():
            worst = max((error(run.tests, name, key, round(megabytes * MB)) for run in runs), key=lambda row: row[3])
            reported, difference, bound, excess = worst
            right += excess <= 0
            rows.append((name, key, megabytes, f"{reported / MB:.1f}", f"{difference / MB:+.1f}", f"{bound / MB:.1f}",
                         verdict(excess <= 0)))  # fmt: skip
    table(("allocation (MB)", "number", "truth", "reported", "difference", "bound", "within"), *rows)
    print(
        f"\n{right} of {len(rows)} within {SLACK / MB:.0f} MB and the printed bound, in the worst of {len(runs)} runs"
    )


def error(tests: Mapping[str, Any], name: str, key: str, truth: int) -> tuple[int, int, int, int]:
    """The reported peak, its difference from the truth, the printed error, and the excess over it."""
    ram = tests[name]["ram"]
    beside = tests[BESIDE.get(name, "test_nothing")]["ram"][f"{key}_bytes"]
    reported = ram[f"{key}_bytes"] - beside
    difference = reported - truth
    return reported, difference, ram["error_bytes"], abs(difference) - ram["error_bytes"] - SLACK


if __name__ == "__main__":
    main()
