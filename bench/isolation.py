"""Cost of isolating one empty test, with torch and transformers loaded in the session.

    python bench/isolation.py --cache FOLDER

Compared: no isolation, this plugin, pytest-forked, and the imports of a fresh interpreter.
pytest-forked does not run on pytest 9, so it gets pytest 8.4 in a venv of its own, made once in the cache folder; the
ratio is taken on that pytest for both, because pytest 9 does more around each test than 8.4.
"""

import argparse
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from _run import Session, interleave, session, table, verdict

TESTS = """
    import pytest
    import torch
    import transformers

    transformers.AutoModel, transformers.PreTrainedModel


    @pytest.mark.parametrize("number", range({tests}))
    def test_nothing(number):
        pass
"""
IMPORTS = "import torch, transformers; transformers.AutoModel, transformers.PreTrainedModel"
ROOT = Path(__file__).resolve().parent.parent
OF_FORKED = 0.3
FRESH_OF_OURS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--forked-python", help="an interpreter with pytest 8.4, pytest-forked, torch, transformers")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "pytest-llmmem-bench")
    options = parser.parse_args()
    forked_python = options.forked_python or make_forked_python(options.cache)

    with session(TESTS.format(tests=options.tests)) as tests:
        variants = {
            "plain pytest": lambda: per_test_s(tests, "-p", "no:llmmem"),
            "llmmem": lambda: per_test_s(tests, "-p", "llmmem", "--llm-isolate=all"),
            "llmmem on 8.4": lambda: per_test_s(tests, "-p", "llmmem", "--llm-isolate=all", python=forked_python),
            "pytest-forked": lambda: per_test_s(tests, "-p", "pytest_forked", "--forked", python=forked_python),
            "fresh interpreter": fresh_s,
        }
        for run in variants.values():
            run()  # the first of each reads its files from disk
        seconds = interleave(variants, options.rounds)

    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ours = medians["llmmem"]
    of_forked, fresh = medians["llmmem on 8.4"] / medians["pytest-forked"], medians["fresh interpreter"] / ours
    table(
        ("per test", "median ms", "lowest ms", "of llmmem"),
        *(
            (name, f"{medians[name] * 1e3:.2f}", f"{min(seconds[name]) * 1e3:.2f}", f"{medians[name] / ours:.2f}")
            for name in variants
        ),
    )
    print()
    table(
        ("ratio", "measured", "goal", "met"),
        ("llmmem / pytest-forked, both on 8.4", f"{of_forked:.2f}", f"<= {OF_FORKED}", verdict(of_forked <= OF_FORKED)),
        ("fresh interpreter / llmmem", f"{fresh:.0f}", f">= {FRESH_OF_OURS}", verdict(fresh >= FRESH_OF_OURS)),
    )


def per_test_s(tests: Session, *arguments: str, python: str = sys.executable) -> float:
    run = tests.run(*arguments, python=python)
    if run.code or not run.per_test_s:
        sys.exit(run.output)
    return statistics.median(run.per_test_s)


def fresh_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True)
    return time.perf_counter() - began


def make_forked_python(cache: Path) -> str:
    """A virtual environment for pytest-forked that also has the libraries of this environment."""
    folder = cache / f"forked-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "pytest==8.4.*", "pytest-forked"], check=True)
    (its_site,) = folder.glob("lib/python*/site-packages")
    its_site.joinpath("behind.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    return str(python)


if __name__ == "__main__":
    main()
