"""Two thousand crashes, drawn at random: each must have the expected ending, and leave nothing behind.

    python bench/soak.py
    python bench/soak.py --deaths 50 --ways stops_fork_server,empties_tmpdir

After each crash comes a test that survives, and looks whether anything of the one before is to be seen. All of them run in
one session alone, and in another with ``-n 2``. Then sessions are killed while a test runs. The tests are in
``_deaths.py``.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from _run import Run, session, table, verdict

LIVED = ("passed completed",)
DIED = ("failed crashed", "failed exited")
EXPECTED = {
    "lives": LIVED,
    "sigsegv": ("failed crashed SIGSEGV",),
    "sigbus": ("failed crashed SIGBUS",),
    "sigabrt": ("failed crashed SIGABRT",),
    "sigkill": ("failed crashed SIGKILL",),
    "exit_0": ("failed exited",),
    "exit_3": ("failed exited",),
    "over_budget": ("failed over_budget",),
    "timeout": ("failed timed_out",),
    "stops_itself": ("failed timed_out",),
    "sys_exit": ("failed raised",),
    "memory_error": ("failed raised",),
    "setup": ("error crashed SIGABRT",),
    "teardown": ("error crashed SIGABRT",),
    "orphan": LIVED,
    "forks_into_pytest": LIVED,
    "kills_fork_server": DIED,
    "stops_fork_server": (*DIED, "failed timed_out", *LIVED),
    "garbage": ("failed exited",),
    "garbage_and_hangs": ("failed exited", "failed timed_out"),
    "bad_message": ("failed exited",),
    "huge_length": ("failed exited",),
    "closes_descriptors": ("failed exited",),
    **{f"replaces_{name}": LIVED for name in ("exit", "getpid", "read", "clock", "socket", "faulthandler")},
    "empties_tmpdir": LIVED,
    "bad_str": ("failed raised",),
    "bad_repr": ("failed raised",),
    "surrogate": ("failed raised",),
    "large_text": ("failed raised",),
    "unpicklable_property": LIVED,
    "own_warning": LIVED,
}
"""Outcome, kind of ending, and the signal where it is the test's own; any of several is right."""
RARE = {"large_text": 0.05}
"""Drawn less often than the others: the session keeps every report."""
LOST_BY_XDIST = {"surrogate"}
"""xdist itself loses the session, without isolation too."""
VARIANTS = {"alone": (), "-n 2": ("-p", "xdist.plugin", "-n", "2")}
CONFTEST = """
    import json
    from pathlib import Path

    DRAWN = [f"test_{name}" for name in json.loads(Path(__file__).with_name("drawn.json").read_text())]


    def pytest_generate_tests(metafunc):
        metafunc.fixturenames.append("number")
        metafunc.parametrize("number", [number for number, name in enumerate(DRAWN) if name == metafunc.function.__name__])


    def pytest_collection_modifyitems(config, items):
        numbered = [item for item in items if isinstance(item.callspec.params["number"], int)]
        items[:] = sorted(numbered, key=lambda item: item.callspec.params["number"])
"""
WITNESS = """
    import os
    import pathlib

    ends = []


    def anonymous_bytes(pid):
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


    def note(name, *words):
        with open(name, "a") as file:
            print(*words, file=file)


    def pytest_runtest_logstart(nodeid):
        note("begun", nodeid)


    def pytest_runtest_logfinish(nodeid):
        note("ended", nodeid)
        ends.append(nodeid)
        if len(ends) % TENTH == 0:
            children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            note("sizes", anonymous_bytes("self"), sum(map(anonymous_bytes, children)), len(os.listdir("/proc/self/fd")))
"""
"""Writes at once what it sees: a session that is lost makes no report."""
GROWTH = 15_000
"""Bytes a test: records and reports."""
LONG = """
    import subprocess
    import time


    def test():
        subprocess.Popen(["sleep", "1234567"], start_new_session=True)
        open("started", "w").close()
        time.sleep(600)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deaths", type=int, default=2000)
    parser.add_argument("--ways", default=",".join(list(EXPECTED)[1:]), help="to draw from, all of them without it")
    parser.add_argument("--variant", choices=list(VARIANTS), help="this variant alone")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    for variant in [options.variant] if options.variant else VARIANTS:
        ways = [way for way in options.ways.split(",") if variant == "alone" or way not in LOST_BY_XDIST]
        deaths = random.Random(options.seed).choices(ways, [RARE.get(way, 1) for way in ways], k=options.deaths)
        drawn = [name for death in deaths for name in (death, "lives")]
        print(f"\n{variant}\n", flush=True)
        soak(drawn, VARIANTS[variant])
        for number in (signal.SIGTERM, signal.SIGKILL):
            kill_session(number, VARIANTS[variant])


def soak(drawn: Sequence[str], arguments: tuple[str, ...]) -> None:
    """Run all in one session, and print how each ended and what the session has left."""
    with session(Path(__file__).with_name("_deaths.py").read_text()) as tests:
        tests.write("drawn.json", json.dumps(drawn))
        tests.write("conftest.py", CONFTEST)
        tests.write("witness.py", WITNESS.replace("TENTH", str(max(1, len(drawn) // 10))))
        shared = set(os.listdir("/dev/shm"))
        run = tests.run("-p", "witness", *arguments, "-p", "llmmem", "--llm-isolate=all", limit_s=60 + len(drawn))
        left = left_behind(tests.folder) + sorted(set(os.listdir("/dev/shm")) - shared)
        begun, ended, sizes = (lines_of(tests.folder / name) for name in ("begun", "ended", "sizes"))
    right = endings(run)
    if run.code not in {0, 1}:
        running = ", ".join(sorted(set(begun) - set(ended)))
        print(f"\nthe session ended with {run.code} after {len(ended)} tests, while these ran: {running or 'none'}")
        print(*(line[:200] for line in run.output.splitlines()[-5:]), sep="\n")
    rows = [
        ("tests that were reported", len(run.tests), len(drawn), verdict(len(run.tests) == len(drawn))),
        ("as expected", right, len(drawn), verdict(right == len(drawn))),
        ("processes, temporary files, shared memory left", ", ".join(left) or "none", "none", verdict(not left)),
        ("ms per test", f"{run.wall_s / len(drawn) * 1e3:.0f}", "", ""),
    ]
    if not arguments and len(drawn) >= 1000:
        columns = zip(*(map(int, line.split()) for line in sizes))
        # the median of nine steps: a restarted fork server or one very large report is in one of them
        steps = [statistics.median(later - earlier for earlier, later in zip(c, c[1:])) for c in columns]
        parent, server = (step / (len(drawn) / 10) for step in steps[:2])
        rows += [
            ("bytes a test that the parent grows by", f"{parent:.0f}", f"< {GROWTH}", verdict(parent < GROWTH)),
            ("bytes a test that the fork server grows by", f"{server:.0f}", f"< {GROWTH}", verdict(server < GROWTH)),
            ("descriptors that the parent gains", f"{steps[2]:+.0f}", "+0", verdict(steps[2] <= 0)),
        ]
    print()
    table(("after the session", "measured", "goal", "met"), *rows)


def endings(run: Run) -> int:
    """Print how the tests of each kind ended, and return how many ended as expected."""
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, test in run.tests.items():
        words = (test["outcome"], test["ending"]["kind"], test["ending"]["signal"])
        seen[name.removeprefix("test_").partition("[")[0]][" ".join(filter(None, words))] += 1
    rows, right = [], 0
    for way, expected in EXPECTED.items():
        if ends := seen[way]:
            others = {end: count for end, count in ends.items() if not end.startswith(expected)}
            as_expected = ends.total() - sum(others.values())
            right += as_expected
            told = "; ".join(f"{count} x {end}" for end, count in others.items())
            rows.append((way, ends.total(), as_expected, told or "none"))
    table(("test", "ran", "as expected", "others"), *rows)
    return right


def kill_session(number: signal.Signals, arguments: tuple[str, ...]) -> None:
    """End a session from outside, while a test runs that has started a process."""
    with session(LONG) as tests:
        command = tests.command(*arguments, "-p", "llmmem", "--llm-isolate=all")
        with tests.folder.joinpath("output").open("wb") as output:
            process = subprocess.Popen(command, cwd=tests.folder, env=tests.environment(), stdout=output, stderr=output)
        wait_until(tests.folder.joinpath("started").exists, 60)
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        left = left_behind(tests.folder)
    print(f"{number.name} to the session's process leaves: {', '.join(left) or 'nothing'}")


def left_behind(folder: Path) -> list[str]:
    """What is left after 15 s: processes that work in the folder, which are ended then, and what is in its ``tmp``.

    xdist's own workers need 6 s to notice that their controller is gone.
    """
    wait_until(lambda: not processes_in(folder), 15)
    found = []
    while processes := processes_in(folder):
        for pid, command in processes.items():
            found.append(command[:40])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
    return found + [path.name for path in folder.joinpath("tmp").iterdir() if not path.name.startswith("pytest-of-")]


def processes_in(folder: Path) -> dict[int, str]:
    """Commands of the processes whose working directory it is, by their ids."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if process.joinpath("cwd").readlink() == folder:
                command = process.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(process.name)] = command.strip()
    return found


def wait_until(condition: Callable[[], bool], limit_s: float) -> None:
    ends = time.monotonic() + limit_s
    while not condition() and time.monotonic() < ends:
        time.sleep(0.1)


def lines_of(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


if __name__ == "__main__":
    main()
