"""What watching costs: the parent's share of a core while a test runs, and what a watched load loses.

python bench/supervision.py
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from _run import Session, interleave, session, table, verdict

MODEL = "synthetic:polyglot-ko-1.3b"
TESTS = """
    import pytest


    @pytest.mark.in_worker
    def test_sleep():
        import time

        time.sleep({sleep_s})


    @pytest.mark.max_ram("1000GB")
    def test_load(model_checkpoint):
        from bare import load_and_touch

        load_and_touch(model_checkpoint.folder)
"""
BARE = """
    import sys
    import time


    def load_and_touch(folder):
        import torch
        import transformers

        transformers.AutoModelForCausalLM
        began = time.perf_counter()
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.view(-1)[::1024].sum()
        with open("seconds", "w") as file:
            file.write(str(time.perf_counter() - began))


    if __name__ == "__main__":
        load_and_touch(sys.argv[1])
"""
PARENT = """
    import os
    import time

    took = {}


    def pytest_runtest_logstart(nodeid):
        took[nodeid] = (time.process_time(), time.perf_counter())


    def pytest_runtest_logfinish(nodeid):
        processor, wall = took[nodeid]
        share = (time.process_time() - processor) / (time.perf_counter() - wall)
        with open("share", "w") as file:
            file.write(str(share))
"""
OF_A_CORE = 0.02
OF_BARE = 1.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sleep", type=float, default=10.0, metavar="SECONDS")
    options = parser.parse_args()
    with session(TESTS.format(sleep_s=options.sleep)) as tests:
        tests.write("bare.py", BARE)
        tests.write("parent.py", PARENT)
        tests.write("conftest.py", FOLDER)
        watched(tests, "test_load")  # makes the checkpoint and reads its files once
        folder = tests.folder.joinpath("model").read_text()
        variants = {
            "sleep": lambda: watched(tests, "test_sleep"),
            "load, watched": lambda: watched(tests, "test_load"),
            "load, bare": lambda: bare(tests, folder),
        }
        results = interleave(variants, options.rounds)
    shares = {name: statistics.median(share for share, _ in results[name]) for name in ("sleep", "load, watched")}
    seconds = {name: statistics.median(s for _, s in results[name]) for name in ("load, watched", "load, bare")}
    ratio = seconds["load, watched"] / seconds["load, bare"]
    table(
        ("watching", "measured", "goal", "met"),
        *(
            (f"parent's share of a core, {name}", f"{share:.2%}", f"<= {OF_A_CORE:.0%}", verdict(share <= OF_A_CORE))
            for name, share in shares.items()
        ),
        ("load and touch, watched / bare", f"{ratio:.3f}", f"<= {OF_BARE}", verdict(ratio <= OF_BARE)),
    )
    print("\nseconds: " + ", ".join(f"{name} {value:.2f}" for name, value in seconds.items()))


FOLDER = """
    import pathlib

    import pytest


    @pytest.fixture(autouse=True)
    def _tell_folder(request):
        if "model_checkpoint" in request.fixturenames:
            folder = request.getfixturevalue("model_checkpoint").folder
            pathlib.Path("model").write_text(str(folder))
"""


def watched(tests: Session, name: str) -> tuple[float, float]:
    """The parent's share of a core during one test, and the seconds that the test's load took."""
    run = tests.run("-p", "parent", "-p", "llmmem", f"--llm-model={MODEL}", "-k", name)
    if run.code:
        sys.exit(run.output)
    return float(tests.folder.joinpath("share").read_text()), seconds(tests.folder)


def bare(tests: Session, model: str) -> tuple[float, float]:
    command = [sys.executable, "bare.py", model]
    subprocess.run(command, cwd=tests.folder, env=tests.environment(), check=True, capture_output=True)
    return 0.0, seconds(tests.folder)


def seconds(folder: Path) -> float:
    file = folder / "seconds"
    return float(file.read_text()) if file.exists() else 0.0


if __name__ == "__main__":
    main()
