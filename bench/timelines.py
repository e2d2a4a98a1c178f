"""What collecting a timeline costs: the same loads in sessions with a report, which have one, and in sessions without.

    python bench/timelines.py

Each round has two sessions without: the ratio of the two says how far the other ratio can be trusted on this machine.
"""

import argparse
import statistics
import subprocess
import sys
from functools import partial

from _run import Session, interleave, session, table, verdict

MODEL = "synthetic:polyglot-ko-1.3b"
LOADS = 3
TESTS = """
    import pytest


    @pytest.mark.parametrize("number", range({loads}))
    @pytest.mark.max_ram("weights + 400MB")
    @pytest.mark.llm_load("bfloat16")
    def test_load(loaded_model, number):
        # the checkpoint is float16: each weight is read, converted and held, instead of mapped
        with open("loads", "a") as file:
            print(loaded_model.seconds, file=file)
"""
WATCH = """
    import time

    began = []


    def pytest_runtest_logstart():
        began.append(time.process_time())


    def pytest_runtest_logfinish():
        with open("watch", "a") as file:
            print(time.process_time() - began[-1], file=file)
"""
"""Processor time of pytest's own process, which looks at the worker, during each test."""
GOAL = 1.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with session(TESTS.format(loads=LOADS)) as tests:
        tests.write("watch.py", WATCH)
        run(tests)  # makes the checkpoint and reads its files once
        variants = {
            "without": partial(run, tests),
            "with": partial(run, tests, "--llm-report=report.json"),
            "without again": partial(run, tests),
        }
        results = interleave(variants, options.rounds)
    load_s = {name: statistics.median(load for loads, _ in runs for load in loads) for name, runs in results.items()}
    watch_s = {
        name: statistics.median(watch for _, watches in runs for watch in watches) for name, runs in results.items()
    }
    ratio = load_s["with"] / load_s["without"]
    table(
        ("a timeline", "measured", "goal", "met"),
        ("time of a load, with / without", f"{ratio:.3f}", f"<= {GOAL}", verdict(ratio <= GOAL)),
        ("time of a load, without / without", f"{load_s['without again'] / load_s['without']:.3f}", "", ""),
    )
    for what, seconds in (("seconds of a load", load_s), ("of processor time to look at a test", watch_s)):
        print(f"\n{what}: " + ", ".join(f"{name} {value:.3f}" for name, value in seconds.items()))


def run(tests: Session, *arguments: str) -> tuple[list[float], list[float]]:
    """One session: the seconds of each load, and of processor time that looking at each test took."""
    for name in ("loads", "watch"):
        tests.folder.joinpath(name).unlink(missing_ok=True)
    done = subprocess.run(
        tests.command("-p", "watch", "-p", "llmmem", f"--llm-model={MODEL}", *arguments),
        cwd=tests.folder, env=tests.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    loads, watch = (
        [float(line) for line in tests.folder.joinpath(name).read_text().split()] for name in ("loads", "watch")
    )
    return loads, watch


if __name__ == "__main__":
    main()
