"""Cost of timelines: the time that pytest's own process spends on one while a model is loaded.

    python bench/timelines.py

The worker does nothing for a timeline. The cost of the functions that the process calls only for it is measured while they
are called, with the clock's own calls, and told as a share of the time that each load takes.
"""

import argparse
import subprocess
import sys

from _run import Middle, Session, session, table

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
CLOCKS = """
    import time

    from pytest_llmmem.core.timeline import Timeline
    from pytest_llmmem.supervision.sampler import Sampler
    from pytest_llmmem.supervision.accounting import Accounting

    spent = [0.0]


    def clocked(kind, name):
        function = getattr(kind, name)

        def run(*arguments, **options):
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent[0] += time.perf_counter() - began

        setattr(kind, name, run)


    clocked(Accounting, "draw")
    clocked(Sampler, "load_position")
    clocked(Timeline, "record")


    def pytest_runtest_logstart():
        spent[0] = 0.0


    def pytest_runtest_logfinish():
        with open("spent", "a") as file:
            print(spent[0], file=file)
"""
GOAL = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with session(TESTS.format(loads=LOADS)) as tests:
        tests.write("clocks.py", CLOCKS)
        run(tests)  # makes the checkpoint and reads its files once
        results = [pair for _ in range(options.rounds) for pair in run(tests)]
    share = Middle.of(spent_s / load_s for load_s, spent_s in results)
    table(
        ("a timeline", "measured", "goal", "met"),
        ("its share of a load's time", f"{share:.2%}", f"<= {GOAL:.0%}", share.at_most(GOAL)),
    )
    print(f"\nseconds of a load: {Middle.of(load_s for load_s, _ in results):.2f}")


def run(tests: Session) -> list[tuple[float, float]]:
    """One session: the seconds of each load, and of what was done for its timeline."""
    for name in ("loads", "spent"):
        tests.folder.joinpath(name).unlink(missing_ok=True)
    command = tests.command("-p", "clocks", "-p", "llmmem", f"--llm-model={MODEL}", "--llm-report=report.json")
    done = subprocess.run(
        command, cwd=tests.folder, env=tests.environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    loads, spent = (
        [float(line) for line in tests.folder.joinpath(name).read_text().split()] for name in ("loads", "spent")
    )
    return list(zip(loads, spent, strict=True))


if __name__ == "__main__":
    main()
