"""Measure how far a test exceeds its budget before it is stopped, and whether the report names the correct line.

    python bench/guard.py

Four ways to take memory fast, each with a budget of 300 MB and ``on_breach="stop"``. What a worker had reached when it
died is not taken from the report, which ends with the last sample: it is what ``wait4`` says of it.
"""

import argparse
import re
import statistics

from _run import MB, Run, session, table, verdict

BUDGET = 300 * MB
GOAL = 20 * MB
TESTS = """
    import mmap
    import os

    import pytest
    import torch

    MB = 1_000_000
    HUGE = 2 << 20
    FILE = os.path.join(os.path.dirname(__file__), "weights")
    with open(FILE, "wb") as file:
        for _ in range(640):
            file.write(bytes(MB))
    pytestmark = pytest.mark.max_ram(300_000_000, on_breach="stop")


    @pytest.mark.parametrize("run", range({runs}))
    def test_small_pages(run):
        held = []
        while True:
            held.append(bytes(4096 - 33))  # at the crossing: small pages


    @pytest.mark.parametrize("run", range({runs}))
    def test_huge_pages(run):
        memory = mmap.mmap(-1, 6_000 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        for page in range(0, len(memory), HUGE):
            memory[page] = 1  # at the crossing: huge pages


    @pytest.mark.parametrize("run", range({runs}))
    def test_one_read(run):
        memory = mmap.mmap(-1, 640 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with open(FILE, "rb", buffering=0) as file:
            file.readinto(memory)  # at the crossing: one read


    @pytest.mark.parametrize("run", range({runs}))
    def test_one_allocation(run):
        torch.ones(1_500_000_000)  # at the crossing: one allocation
"""

WITNESS = """
    import os

    wait4 = os.wait4


    def witnessed(which, options):
        pid, status, usage = wait4(which, options)
        if which == -1 and pid and os.WIFSIGNALED(status):
            with open("died", "a") as file:
                file.write(f"{usage.ru_maxrss * 1024}\\n")
        return pid, status, usage


    os.wait4 = witnessed
    os.waitpid = lambda pid, options: witnessed(pid, options)[:2]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    with session(TESTS.format(runs=options.runs)) as tests:
        lines = crossing_lines(tests.folder.joinpath("test_bench.py").read_text())
        tests.write("witness.py", WITNESS)
        run = tests.run("-p", "witness", "-p", "llmmem")
        died = map(int, tests.folder.joinpath("died").read_text().split())
    peaks = dict(zip(run.tests, died, strict=True))
    rows = [row(run, peaks, name, line) for name, line in lines.items()]
    header = ("taking memory by", "reported over", "median over", "worst over", "goal", "met", "right line", "stopped")
    table(header, *rows)


def crossing_lines(source: str) -> dict[str, int]:
    """By test, the line that the stack at the crossing must name."""
    found, name = {}, ""
    for number, line in enumerate(source.splitlines(), 1):
        if match := re.match(r"def (test_\w+)", line):
            name = match[1]
        elif "# at the crossing" in line:
            found[name] = number
    return found


def row(run: Run, peaks: dict[str, int], name: str, line: int) -> tuple[object, ...]:
    """One way to take memory, with the excess over the budget in MB."""
    names = [test for test in run.tests if test.startswith(f"{name}[")]
    mine = [run.tests[test] for test in names]
    reported = [budget["actual_bytes"] - BUDGET for test in mine for budget in test["budgets"]]
    over = [peaks[test] - run.tests[test]["ram"]["baseline_bytes"] - BUDGET for test in names]
    right = sum(bool(test["stack"]) and f"test_bench.py:{line} " in test["stack"][0] for test in mine)
    stopped = sum(test["ending"]["kind"] == "over_budget" for test in mine)
    return (
        name.removeprefix("test_").replace("_", " "),
        f"{max(reported) / MB:.1f}",
        f"{statistics.median(over) / MB:.1f}",
        f"{max(over) / MB:.1f}",
        f"<= {GOAL / MB:.0f}",
        verdict(max(over) <= GOAL),
        f"{right} of {len(mine)}",
        f"{stopped} of {len(mine)}",
    )


if __name__ == "__main__":
    main()
