"""Run the test suites of other projects without isolation and with every test isolated: no outcome may differ.

    python bench/foreign.py --only pytest
    python bench/foreign.py --only transformers --source transformers=CHECKOUT

Each package has an environment of its own under ``--cache``, with the plugins that projects use. Its tests run plain, and
then isolated in several variants. A test whose outcome differs runs by itself, plain and isolated: isolation has not
changed it if it differs plain, too, or not again. transformers' tests are in no release: they need a folder with a
checkout, which is installed and written into, and are passed over without one.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from suites import ISOLATED, PLAIN, ROOT, Bench, Run, Suite, differences

VARIANTS = {
    "alone": (),
    "-n 2": ("-n", "2"),
    "--cov --timeout": ("--cov", "--cov-report=", "--timeout=600"),
}
BESIDE = ("pytest-asyncio==1.5.0", "pytest-cov==7.1.0", "pytest-timeout==2.4.0", "pytest-xdist==3.8.0")
"""Installed with every suite. Subtests are pytest's own."""
ALWAYS = ("-o", "asyncio_default_fixture_loop_scope=function")
"""Unset, pytest-asyncio warns at configuration, which a suite that makes errors of warnings does not survive."""
PYTEST = "9.2.0"
CHECKOUT = "checkout"
TORCH = "torch==2.13.0"
ACCELERATE = (
    *("accelerator", "big_modeling", "cpu", "data_loader", "grad_sync", "hooks", "imports", "kwargs_handlers"),
    *("logging", "memory_utils", "modeling_utils", "offload", "optimizer", "scheduler", "state_checkpointing", "utils"),
)
"""Its other tests need a GPU, a configuration that the sdist leaves out, or the Hub."""
MODELS = ("llama", "bert", "t5", "whisper", "mixtral", "clip")
SUITES = (
    Suite(
        name="pytest",
        version=PYTEST,
        requires=(f"pytest[dev]=={PYTEST}",),
        arguments=("-p", "pytester"),
        tests=("testing",),
        limit_s=1800,
    ),
    Suite(name="pluggy", version="1.7.0", requires=("pytest-benchmark==5.3.1",), tests=("testing",)),
    Suite(
        name="attrs",
        version="26.1.0",
        requires=("cloudpickle==3.1.2", "hypothesis==6.170.15", "pympler==1.1"),
        arguments=("--hypothesis-seed=0",),
    ),
    Suite(
        name="httpx",
        version="0.28.1",
        requires=(
            "httpx[brotli,cli,http2,socks,zstd]==0.28.1",
            *("chardet==5.2.0", "trio==0.27.0", "trustme==1.2.0", "uvicorn==0.32.1"),
        ),
    ),
    Suite(
        name="accelerate",
        version="1.15.0",
        requires=(TORCH, "transformers==5.23.0", "parameterized==0.9.0"),
        tests=tuple(f"tests/test_{name}.py" for name in ACCELERATE),
    ),
    *(
        Suite(
            name="transformers",
            version=CHECKOUT,
            part=model,
            requires=(
                TORCH,
                *("accelerate==1.15.0", "datasets==5.2.0", "parameterized==0.9.0", "pillow==13.0.0", "requests"),
            ),
            tests=(f"tests/models/{model}/test_modeling_{model}.py",),
            # its skip marks compute on import; with more threads no worker could be forked afterwards
            environment={"OMP_NUM_THREADS": "1"},
            limit_s=1800,
        )
        for model in MODELS
    ),
)
HANGS = {("httpx", "-n 2")}
"""Plain, too: its session fixture waits for a server with a fixed port."""
SHOWN = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted({suite.name for suite in SUITES}), help="this package alone")
    parser.add_argument("--part", choices=MODELS, help="this part of its tests alone")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="this one alone, or several of them")
    parser.add_argument("--source", action="append", default=[], metavar="NAME=FOLDER", help="a checkout of a package")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache/foreign", help="folder for all that is kept")
    chosen = parser.parse_args()
    cache, checkouts = chosen.cache.resolve(), dict(source.split("=", 1) for source in chosen.source)
    print("suite | version | variant | tests | plain | isolated | differ | by isolation | plain s | isolated s")
    print(" | ".join(["---"] * 10), flush=True)
    notes, prepared = [], set()
    for suite in map(partial(from_checkout, checkouts), SUITES):
        if chosen.only not in {None, suite.name} or chosen.part not in {None, suite.part}:
            continue
        if suite.version == CHECKOUT and suite.checkout is None:
            notes.append(f"{suite.name} {suite.part}: passed over without --source {suite.name}=FOLDER")
            continue
        bench = Bench(suite=suite, folder=cache / suite.stem)
        if bench.folder not in prepared:
            bench.prepare(base_python=sys.executable, pytest_version=PYTEST, sdists=cache / "sdists", beside=BESIDE)
            prepared.add(bench.folder)
        notes += compare(bench, chosen.variant or list(VARIANTS))
    print("", *notes, sep="\n")


def from_checkout(folders: dict[str, str], suite: Suite) -> Suite:
    """The same suite, from a given folder."""
    if suite.name not in folders:
        return suite
    return replace(suite, version=CHECKOUT, checkout=Path(folders[suite.name]).resolve())


def compare(bench: Bench, variants: list[str]) -> list[str]:
    """Print a row for each variant, and return what differs."""
    suite, notes = bench.suite, []
    title = f"{suite.name} {suite.part}".strip()
    # otherwise only the plain run would compile
    bench.run("collection", (*ALWAYS, *PLAIN, "--collect-only"))
    plain = bench.run("plain", (*ALWAYS, *PLAIN))
    if not plain.outcomes:
        sys.exit(f"{title} runs no test even without the plugin: see {bench.folder}")
    for variant in variants:
        if (suite.name, variant) in HANGS:
            notes.append(f"{title}, {variant}: passed over, it hangs without isolation, too")
            continue
        label = variant.replace("-", "").replace(" ", "-")
        isolated = bench.run(label, (*ALWAYS, *ISOLATED, *VARIANTS[variant]))
        found = differences(plain, isolated)
        both = [test for test in found if test in plain.outcomes and test in isolated.outcomes]
        causes = {test: cause(bench, test, variant, plain, isolated) for test in both[:SHOWN]}
        of_isolation = len(found) - sum(map(bool, causes.values()))
        print(f"{title} | {suite.version} | {variant} | {len(plain.outcomes)} | {plain} | {isolated}", end=" | ")
        print(f"{len(found)} | {of_isolation} | {plain.seconds:.0f} | {isolated.seconds:.0f}", flush=True)
        lines = [f"{sentence}{causes.get(test, '')}" for test, sentence in found.items()]
        file = bench.folder / f"{suite.part or suite.name}-{label}.differences"
        file.write_text("\n".join(lines), encoding="utf-8")
        more = [f"... {len(lines) - SHOWN} more in {file}"] if len(lines) > SHOWN else []
        notes += [f"{title}, {variant}: {line}" for line in (*lines[:SHOWN], *more)]
    return notes


def cause(bench: Bench, test: str, variant: str, plain: Run, isolated: Run) -> str:
    """Why a test differs, if isolation is not the cause, found by running it alone. Empty if unknown."""
    by_itself = bench.run("itself-plain", (*ALWAYS, *PLAIN, *VARIANTS[variant]), test=test)
    if by_itself.outcomes.get(test) != plain.outcomes[test]:
        return " [plain, too, when it runs by itself: it depends on tests before it]"
    again = bench.run("itself", (*ALWAYS, *ISOLATED, *VARIANTS[variant]), test=test)
    if again.outcomes.get(test) != isolated.outcomes[test]:
        return " [not again when it is run isolated by itself]"
    return ""


if __name__ == "__main__":
    main()
