"""Two thousand isolated tests, a third of which die in every way: each must end as itself, and nothing may be left.

python bench/soak.py
"""

import argparse
import time
from collections import Counter
from pathlib import Path

from _run import MB, Run, session, table, verdict

TESTS = """
    import ctypes
    import mmap
    import os
    import signal
    import subprocess
    import sys
    import time

    import pytest

    NUMBERS = range({tests})


    def numbers(*ends):
        return pytest.mark.parametrize("number", [number for number in NUMBERS if number % 39 in ends])


    @numbers(*range(26))
    def test_lives(number, tmp_path):
        tmp_path.joinpath("file").write_text("x")


    @numbers(26)
    def test_sigsegv(number):
        ctypes.string_at(0)


    @numbers(27)
    def test_sigbus(number, tmp_path):
        path = tmp_path / "truncated"
        path.write_bytes(bytes(2 * mmap.PAGESIZE))
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
            file.truncate(0)
            memory[mmap.PAGESIZE]


    @numbers(28)
    def test_sigabrt(number):
        os.abort()


    @numbers(29)
    def test_sigkill(number):
        os.kill(os.getpid(), signal.SIGKILL)


    @numbers(30)
    def test_exit_0(number):
        os._exit(0)


    @numbers(31)
    def test_exit_3(number):
        os._exit(3)


    @numbers(32)
    @pytest.mark.max_ram("20MB", on_breach="stop")
    def test_over_budget(number):
        held = []
        while True:
            held.append(bytes(100_000))


    @numbers(33)
    @pytest.mark.in_worker(timeout=0.3)
    def test_timeout(number):
        time.sleep(60)


    @numbers(34)
    def test_sys_exit(number):
        sys.exit(1)


    @numbers(35)
    def test_memory_error(number):
        raise MemoryError


    @numbers(36)
    def test_orphan(number):
        subprocess.Popen(["sleep", "1234567"], start_new_session=True)


    @pytest.fixture
    def dies_in_setup():
        os.abort()


    @pytest.fixture
    def dies_in_teardown():
        yield
        os.abort()


    @numbers(37)
    def test_setup(number, dies_in_setup):
        pass


    @numbers(38)
    def test_teardown(number, dies_in_teardown):
        pass
"""
EXPECTED = {
    "test_lives": ("passed", "completed", None),
    "test_sigsegv": ("failed", "crashed", "SIGSEGV"),
    "test_sigbus": ("failed", "crashed", "SIGBUS"),
    "test_sigabrt": ("failed", "crashed", "SIGABRT"),
    "test_sigkill": ("failed", "crashed", "SIGKILL"),
    "test_exit_0": ("failed", "exited", None),
    "test_exit_3": ("failed", "exited", None),
    "test_over_budget": ("failed", "over_budget", None),
    "test_timeout": ("failed", "timed_out", None),
    "test_sys_exit": ("failed", "raised", None),
    "test_memory_error": ("failed", "raised", None),
    "test_orphan": ("passed", "completed", None),
    "test_setup": ("error", "crashed", "SIGABRT"),
    "test_teardown": ("error", "crashed", "SIGABRT"),
}
"""Outcome, ending, and the signal where it was the test's own."""
WITNESS = """
    import os
    import pathlib
    import sys

    seen = []


    def status(pid):
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


    def pytest_runtest_logfinish():
        seen.append(1)
        if len(seen) in {WARM, LAST}:
            children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            row = [status("self"), sum(map(status, children)), len(os.listdir("/proc/self/fd"))]
            with open("weights", "a") as file:
                print(*row, file=file)
"""
GROWTH = 20 * MB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=2000)
    options = parser.parse_args()
    with session(TESTS.format(tests=options.tests)) as tests:
        witness = WITNESS.replace("WARM", str(options.tests // 10)).replace("LAST", str(options.tests))
        tests.write("witness.py", witness)
        began = time.perf_counter()
        run = tests.run("-p", "witness", "-p", "llmmem", "--llm-isolate=all")
        seconds = time.perf_counter() - began
        left = left_behind(tests.folder)
        warm, last = (
            [int(number) for number in line.split()]
            for line in tests.folder.joinpath("weights").read_text().splitlines()
        )
    outcomes(run)
    parent, zygote, descriptors = (after - then for then, after in zip(warm, last, strict=True))
    print()
    table(
        ("after the session", "measured", "goal", "met"),
        ("tests that were reported", len(run.tests), options.tests, verdict(len(run.tests) == options.tests)),
        ("processes, temporary folders, locks left", ", ".join(left) or "none", "none", verdict(not left)),
        ("parent's growth since a tenth, MB", f"{parent / MB:.1f}", f"< {GROWTH / MB:.0f}", verdict(parent < GROWTH)),
        ("zygote's growth since a tenth, MB", f"{zygote / MB:.1f}", f"< {GROWTH / MB:.0f}", verdict(zygote < GROWTH)),
        ("parent's descriptors since a tenth", f"{descriptors:+d}", "+0", verdict(descriptors <= 0)),
        ("ms per test", f"{seconds / options.tests * 1e3:.0f}", "", ""),
    )


def outcomes(run: Run) -> None:
    """Print, for every way to end, how many tests ended so, and what the others did instead."""
    rows = []
    for name, (outcome, kind, signal) in EXPECTED.items():
        ends = Counter(
            (test["outcome"], test["ending"]["kind"], test["ending"]["signal"] if signal else None)
            for test_name, test in run.tests.items()
            if test_name.startswith(f"{name}[")
        )
        right = ends.pop((outcome, kind, signal), 0)
        others = "; ".join(f"{count} x {' '.join(filter(None, end))}" for end, count in ends.items())
        rows.append((name, right + sum(ends.values()), right, others or "none"))
    table(("test", "ran", "as expected", "others"), *rows)


def left_behind(folder: Path) -> list[str]:
    """Processes that were started in the session's folder, and what is in its folder for temporary files."""
    found = [path.name for path in folder.joinpath("tmp").iterdir() if not path.name.startswith("pytest-of-")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").readlink() == folder:
                found.append(process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode().strip()[:40])
        except OSError:
            continue  # it ended meanwhile
    return found


if __name__ == "__main__":
    main()
