"""Cost of the plugin in a session that isolates nothing.

python bench/idle.py
"""

import argparse
import statistics
import subprocess
import sys

from _run import interleave, session, table, verdict

TESTS = """
    import pytest


    @pytest.mark.parametrize("number", range({tests}))
    def test_nothing(number):
        pass
"""
ADDED = """
import sys

import pytest

before = set(sys.modules)
import pytest_llmmem.plugin

print(*sorted(set(sys.modules) - before))
"""
HEAVY = {"torch", "transformers", "accelerate", "psutil", "pynvml", "jinja2"}
MODULES = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tests", type=int, default=200)
    options = parser.parse_args()
    with session(TESTS.format(tests=options.tests), plugins="installed") as tests:
        variants = {
            "without": lambda: tests.run("-p", "no:llmmem").wall_s,
            "with": lambda: tests.run().wall_s,
        }
        interleave(variants, 1)
        seconds = interleave(variants, options.rounds)
    without, with_ = (statistics.median(seconds[name]) for name in variants)
    added = subprocess.run([sys.executable, "-c", ADDED], check=True, capture_output=True, text=True).stdout.split()
    heavy = sorted(HEAVY.intersection(name.partition(".")[0] for name in added))
    table(
        (f"session of {options.tests} empty tests", "measured", "goal", "met"),
        ("seconds without the plugin", f"{without:.3f}", "", ""),
        ("seconds with it", f"{with_:.3f}", "", ""),
        ("with / without", f"{with_ / without:.3f}", "", ""),
        ("modules it imports", len(added), f"<= {MODULES}", verdict(len(added) <= MODULES)),
        ("heavy ones among them", ", ".join(heavy) or "none", "none", verdict(not heavy)),
    )
    print("\n" + "\n".join(added))


if __name__ == "__main__":
    main()
