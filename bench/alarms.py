"""Count false alarms of baselines in runs without growth, and growth that they miss.

    python bench/alarms.py

Baselines are written once, from three runs of each test, and the tolerance is the one that ``llmmem suggest`` makes of
those. From then on a loop keeps one core busy.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from _run import MB, Run, Session, busy_core, session, table, verdict

from pytest_llmmem.baselines.tolerance import Tolerance, parse_tolerance

MODEL = "synthetic:bert-base"
TESTS = """
    import subprocess
    import sys

    import pytest
    import torch

    TOKENS = torch.arange(8).unsqueeze(0)


    def test_load(loaded_model):
        assert loaded_model.nbytes


    def test_touch(loaded_model):
        loaded_model.touch()


    def test_forward(loaded_model):
        with torch.inference_mode():
            loaded_model.model(TOKENS)


    def test_copy(loaded_model):
        assert [tensor.clone() for tensor in loaded_model.model.state_dict().values()]


    @pytest.mark.llm_load("bfloat16")
    def test_cast(loaded_model):
        assert loaded_model.dtype == torch.bfloat16


    @pytest.mark.in_worker
    def test_buffer():
        assert bytearray(200_000_000)


    @pytest.mark.in_worker
    def test_child():
        subprocess.run([sys.executable, "-c", "import time; held = bytearray(50_000_000); time.sleep(0.3)"], check=True)
"""
GROWTH = """
    import json
    from pathlib import Path

    import pytest


    @pytest.fixture(autouse=True)
    def growth(request):
        growth_bytes = json.loads(Path(__file__).with_name("growth.json").read_text())
        held = bytearray(growth_bytes.get(request.node.name, 0))
        yield
        del held
"""
"""How much more each test holds, by its name, until it ends."""
TIMES = 2
"""The tolerance: how much a test grows."""
HEADER = ("MB", "baseline", "lowest", "highest", "tolerance", "error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30, help="in which nothing has grown")
    parser.add_argument("--growths", type=int, default=10, help="runs in which one test has, each by turns")
    options = parser.parse_args()
    with session(TESTS) as tests:
        tests.write("conftest.py", GROWTH)
        first = run(tests, "--llm-baseline-update", "--llm-repeat=3")
        tolerance = suggested(tests.folder)
        growths = {name: TIMES * tolerance.bytes(peak_bytes(test)) for name, test in first.tests.items()}
        growing = list(islice(cycle(growths), options.growths))
        compared = f"--llm-tolerance={tolerance.text}"
        with busy_core():
            same = [run(tests, compared) for _ in range(options.runs)]
            grown = [run(tests, compared, grows=name, growth_bytes=growths[name]) for name in growing]
    false = [name for each in same for name in alarms(each)]
    missed = [name for name, each in zip(growing, grown) if name not in alarms(each)]
    table(
        ("alarms", "measured", "goal", "met"),
        (f"false, in {len(same)} runs of {len(first.tests)} tests", len(false), 0, verdict(not false)),
        (f"growth of {TIMES} tolerances not seen, of {len(grown)}", len(missed), 0, verdict(not missed)),
    )
    print(f"\ntolerance, as suggested: {tolerance.text}\n")
    rows = (
        (*row(name, first, same, tolerance), false.count(name), growing.count(name), missed.count(name))
        for name in growths
    )
    table((*HEADER, "false", "grown", "not seen"), *rows)


def run(tests: Session, *arguments: str, grows: str = "", growth_bytes: int = 0) -> Run:
    """One session, in which every test must end; one of them may grow on purpose."""
    tests.write("growth.json", json.dumps({grows: growth_bytes}))
    done = tests.run("-p", "llmmem", f"--llm-model={MODEL}", *arguments)
    if not done.tests or any(test["ending"]["kind"] != "completed" for test in done.tests.values()):
        sys.exit(done.output)
    return done


def suggested(folder: Path) -> Tolerance:
    """The tolerance that ``llmmem suggest`` derives from the report of the last run."""
    command = [sys.executable, "-m", "pytest_llmmem", "suggest", "report.json", "--json"]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    return parse_tolerance(json.loads(told)["tolerance"])


def alarms(done: Run) -> list[str]:
    """The tests that failed because they grew."""
    return [
        name
        for name, test in done.tests.items()
        if test["outcome"] == "failed" and test["baseline"]["verdict"] == "grew"
    ]


def peak_bytes(test: Mapping[str, Any]) -> int:
    return test["ram"]["peak_bytes"]


def row(name: str, first: Run, same: Sequence[Run], tolerance: Tolerance) -> tuple[str, ...]:
    """Under ``HEADER``: a test's baseline, how far it went from it by itself, and how far it may go."""
    before = first.tests[name]
    after = [each.tests[name] for each in same]
    error_bytes = before["ram"]["error_bytes"] + max(test["ram"]["error_bytes"] for test in after)
    peaks = [peak_bytes(test) for test in after]
    numbers = (peak_bytes(before), min(peaks), max(peaks), tolerance.bytes(peak_bytes(before)), error_bytes)
    return name, *(f"{number / MB:.1f}" for number in numbers)


if __name__ == "__main__":
    main()
