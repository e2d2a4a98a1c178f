"""Run the test suites of well-known packages plain and isolated, and compare the outcome of every test.

Isolation that changes the outcome of a test is a defect, and the project's own tests cover only expected cases. So three
suites of other projects are run twice, once without the plugin and once with every test in a worker of its own:

    python tools/fidelity.py --python 3.13 --pytest 8.2.0 --extra "-n 2"

The exit status is 1 if any outcome differs. Seconds are the wall time of one run each: a hint, not a benchmark.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from interpreters import find
from suites import ISOLATED, PLAIN, ROOT, Bench, Suite, differences

SHOWN = 10
# Installed beside every suite so that `--extra "-n 2"` works; idle otherwise.
TOOLS = ("pytest-xdist==3.8.0",)

SUITES = (
    # capsys, capfd, monkeypatch, tmp_path, processes, threads; every warning is an error. Its own addopts, which are
    # not used, leave the 31000 stress tests out.
    Suite(name="click", version="8.5.1", arguments=("-m", "not stress")),
    # Session and module fixtures, xfail, hypothesis. The seed makes both runs try the same examples.
    Suite(
        name="attrs",
        version="26.1.0",
        requires=("cloudpickle==3.1.2", "hypothesis==6.170.15", "pympler==1.1"),
        arguments=("--hypothesis-seed=0",),
    ),
    # unittest.TestCase throughout, 11000 subtests, threads. test_primes alone takes as long as all the others.
    Suite(name="more-itertools", version="11.2.1", arguments=("-k", "not test_primes")),
)


def main() -> int:
    """Compare the chosen suites, print a Markdown table, then what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="a version like 3.13, or a path")
    parser.add_argument("--pytest", default="9.2.0", metavar="VERSION", help="pytest to install (default: %(default)s)")
    parser.add_argument("--extra", default="", metavar="ARGS", help='more arguments for the isolated run, like "-n 2"')
    parser.add_argument("--only", choices=[suite.name for suite in SUITES], help="run this suite alone")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache/fidelity", help="folder for all that is kept")
    chosen = parser.parse_args()
    if (chosen_python := find(chosen.python)) is None:
        print(f"passed over: there is no Python {chosen.python} here")
        return 0
    cache, ask = chosen.cache.resolve(), "import platform; print(platform.python_version())"
    version = subprocess.check_output([chosen_python, "-c", ask], text=True).strip()
    print("package | version | tests | plain | isolated | differing | plain s | isolated s | ratio")
    print(" | ".join(["---"] * 9))
    notes, differing = [], 0
    for suite in (suite for suite in SUITES if chosen.only in {None, suite.name}):
        bench = Bench(suite=suite, folder=cache / f"{suite.stem}-python{version}-pytest{chosen.pytest}")
        bench.prepare(base_python=chosen_python, pytest_version=chosen.pytest, sdists=cache / "sdists", beside=TOOLS)
        # Otherwise only the plain run would rewrite and compile the assertions of its modules.
        bench.run("collection", (*PLAIN, "--collect-only"))
        plain = bench.run("plain", PLAIN)
        if not plain.outcomes:
            sys.exit(f"fidelity: {suite.name} runs no test even without the plugin: see {bench.folder / 'plain.log'}")
        isolated = bench.run("isolated", (*ISOLATED, *shlex.split(chosen.extra)))
        found = list(differences(plain, isolated).values())
        print(
            f"{suite.name} | {suite.version} | {len(plain.outcomes)} | {plain} | {isolated} | {len(found)}", end=" | "
        )
        print(f"{plain.seconds:.1f} | {isolated.seconds:.1f} | {isolated.seconds / plain.seconds:.2f}", flush=True)
        totals = f"(pytest's summary): plain {plain.summary}; isolated {isolated.summary}; logs in {bench.folder}"
        notes += [f"{suite.name}: {line}" for line in (*found[:SHOWN], totals)]
        differing += len(found)
    print("", *notes, sep="\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
