"""Fixed cost of a session: with nothing isolated, and with all tests isolated.

    python bench/session.py

The slope between 60 and 240 tests separates the cost of a session from the cost of a test; those of plain pytest are
taken off. With `--with-torch` the tests import torch and transformers, as those of a model repository do; what these
imports take varies by more than we cost, so time is counted from the end of collection there.
"""

import argparse
import statistics
from collections.abc import Callable

from _run import Session, interleave, session, table, verdict

CLOCK = """
    import atexit, pathlib, time

    def pytest_collection_finish():
        began = time.perf_counter()
        atexit.register(lambda: pathlib.Path(__file__).with_name("loop").write_text(str(time.perf_counter() - began)))
"""

TESTS = """
    import pytest
    {imports}

    @pytest.mark.parametrize("number", range({tests}))
    def test_nothing(number):
        pass
"""
LOADED = "import torch, transformers; transformers.AutoModel, transformers.PreTrainedModel"
FEW, MANY = 60, 240
INSTALLED_GOAL_MS = 10
ISOLATING_GOAL_MS = 400

VARIANTS = {
    "plain pytest": ("-p", "no:llmmem"),
    "installed, nothing isolated": (),
    "every test isolated": ("--llm-isolate=all",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--with-torch", action="store_true")
    options = parser.parse_args()
    imports = LOADED if options.with_torch else ""
    with (
        session(TESTS.format(tests=FEW, imports=imports), plugins="installed") as few,
        session(TESTS.format(tests=MANY, imports=imports), plugins="installed") as many,
    ):
        few.write("conftest.py", CLOCK)
        many.write("conftest.py", CLOCK)
        runs = {
            (name, tests): runner(tests, arguments, from_collection=options.with_torch)
            for name, arguments in VARIANTS.items()
            for tests in (few, many)
        }
        for run in runs.values():
            run()  # the first of each reads its files from disk
        walls = {key: statistics.median(times) for key, times in interleave(runs, options.rounds).items()}

    def costs(name: str) -> tuple[float, float]:
        of_few, of_many = walls[name, few] * 1e3, walls[name, many] * 1e3
        per_test = (of_many - of_few) / (MANY - FEW)
        return of_few - FEW * per_test, per_test

    plain, _ = costs("plain pytest")
    goals = {"installed, nothing isolated": INSTALLED_GOAL_MS, "every test isolated": ISOLATING_GOAL_MS}
    table(
        ("session", "once, ms", "each test, ms", "once above plain, ms", "goal, ms", "met"),
        *(
            (
                name,
                f"{once:.0f}",
                f"{each:.2f}",
                f"{once - plain:.0f}",
                str(goals.get(name, "")),
                verdict(once - plain <= goals[name]) if name in goals else "",
            )
            for name in VARIANTS
            for once, each in [costs(name)]
        ),
    )


def runner(tests: Session, arguments: tuple[str, ...], *, from_collection: bool) -> Callable[[], float]:
    def run() -> float:
        ended = tests.run(*arguments)
        if ended.code:
            raise SystemExit(ended.output)
        return float(tests.folder.joinpath("loop").read_text()) if from_collection else ended.wall_s

    return run


if __name__ == "__main__":
    main()
