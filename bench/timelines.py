"""What collecting a timeline costs: the same loads in sessions with a report, which have one, and in sessions without.

    python bench/timelines.py

A timeline is collected by pytest's own process; the worker does nothing for it. So what it costs is the processor time
that this process needs more, as a share of the time that the load takes.
"""

import argparse
import statistics
import subprocess
import sys
from functools import partial

from _run import Middle, Session, interleave, session, table

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
GOAL = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with session(TESTS.format(loads=LOADS)) as tests:
        tests.write("watch.py", WATCH)
        run(tests)  # makes the checkpoint and reads its files once
        variants = {"without": partial(run, tests), "with": partial(run, tests, "--llm-report=report.json")}
        results = interleave(variants, options.rounds)
    shares = [
        (watched - unwatched) / load_s
        for (_, there), (loads, not_there) in zip(results["with"], results["without"], strict=True)
        for watched, unwatched, load_s in zip(there, not_there, loads, strict=True)
    ]
    share = Middle.of(shares)
    table(
        ("a timeline", "measured", "goal", "met"),
        ("processor time more, of a load's time", f"{share:.2%}", f"<= {GOAL:.0%}", share.at_most(GOAL)),
    )
    for what, index in (("seconds of a load", 0), ("of processor time to look at a test", 1)):
        seconds = {name: statistics.median(s for each in runs for s in each[index]) for name, runs in results.items()}
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
