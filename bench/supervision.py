"""Cost of supervision: the parent's share of a core while a test runs, and the slowdown of a supervised load.

python bench/supervision.py
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from _run import Middle, Session, interleave, session, table

MODEL = "synthetic:polyglot-ko-1.3b"
TESTS = """
    import pytest


    @pytest.mark.in_worker
    def test_sleep():
        import time

        time.sleep({sleep_s})


    @pytest.mark.max_ram("1000GB")
    def test_load(model_checkpoint):
        from bare import load

        with open("model", "w") as file:
            file.write(str(model_checkpoint.path))
        load(model_checkpoint.path)
"""
BARE = """
    import sys
    import time


    def load(folder):
        import torch
        import transformers

        transformers.AutoModelForCausalLM  # imported before the clock starts: in a worker it is there already
        transformers.models.gpt_neox.modeling_gpt_neox
        began = time.perf_counter()
        # the checkpoint is float16: each weight is read, converted and held, instead of mapped
        transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        with open("seconds", "w") as file:
            file.write(str(time.perf_counter() - began))


    if __name__ == "__main__":
        load(sys.argv[1])
"""
PARENT = """
    import time

    began = []


    def pytest_runtest_logstart():
        began.append(time.process_time())


    def pytest_runtest_logfinish():
        with open("processor", "w") as file:
            file.write(str(time.process_time() - began[-1]))
"""
SLEEPS = 3
OF_A_CORE = 0.02
OF_BARE = 1.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of loads")
    parser.add_argument("--sleep", type=float, default=10.0, metavar="SECONDS")
    options = parser.parse_args()
    with session(TESTS.format(sleep_s=options.sleep)) as tests:
        tests.write("bare.py", BARE)
        tests.write("parent.py", PARENT)
        watched(tests, "test_load")  # makes the checkpoint and reads its files once
        folder = tests.folder.joinpath("model").read_text()
        sleeps = [watched(tests, "test_sleep") for _ in range(SLEEPS)]
        variants = {"watched": lambda: watched(tests, "test_load"), "bare": lambda: bare(tests, folder)}
        loads = interleave(variants, options.rounds)
    shares = {
        "sleep": Middle.of(share for share, _ in sleeps),
        "load": Middle.of(share for share, _ in loads["watched"]),
    }
    ratio = Middle.of(ours / theirs for (_, ours), (_, theirs) in zip(loads["watched"], loads["bare"], strict=True))
    table(
        ("watching", "measured", "goal", "met"),
        *(
            (f"parent's share of a core, {name}", f"{share:.2%}", f"<= {OF_A_CORE:.0%}", share.at_most(OF_A_CORE))
            for name, share in shares.items()
        ),
        ("load of 2.66 GB, watched / bare", f"{ratio:.3f}", f"<= {OF_BARE}", ratio.at_most(OF_BARE)),
    )
    seconds = {name: statistics.median(s for _, s in runs) for name, runs in loads.items()}
    print("\nseconds: " + ", ".join(f"{name} {value:.2f}" for name, value in seconds.items()))


def watched(tests: Session, name: str) -> tuple[float, float]:
    """The parent's share of a core during one test, and the seconds that the test's load took."""
    run = tests.run("-p", "parent", "-p", "llmmem", f"--llm-model={MODEL}", "-k", name)
    if run.code:
        sys.exit(run.output)
    (test,) = run.tests.values()
    processor_s = float(tests.folder.joinpath("processor").read_text())
    return processor_s / test["duration_s"], seconds(tests.folder)


def bare(tests: Session, model: str) -> tuple[float, float]:
    command = [sys.executable, "bare.py", model]
    subprocess.run(command, cwd=tests.folder, env=tests.environment(), check=True, capture_output=True)
    return 0.0, seconds(tests.folder)


def seconds(folder: Path) -> float:
    file = folder / "seconds"
    return float(file.read_text()) if file.exists() else 0.0


if __name__ == "__main__":
    main()
