"""Run the ready-made checks on memory regressions of transformers: each with a version that has it, and one that does not.

python bench/regressions [--only WORD]
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from cases import REGRESSIONS, Regression
from environments import PROJECT, environment, run
from models import Model

sys.path.append(str(PROJECT / "bench"))
from _run import table, verdict

HERE = Path(__file__).parent
CACHE = PROJECT / ".cache/regressions"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="those whose reference has this in it")
    options = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    rows, caught = [], 0
    chosen = [regression for regression in REGRESSIONS if options.only in regression.reference]
    for regression in chosen:
        bad, good = (failures(regression, version) for version in (regression.bad, regression.good))
        sees = bad > 0 == good
        caught += sees
        rows.append((
            regression.reference, regression.check, regression.load,
            f"{regression.bad}: {bad}", f"{regression.good}: {good}", regression.runs, verdict(sees),
        ))  # fmt: skip
        print(*rows[-1], sep="  ", flush=True)
    print()
    table(("regression", "check", "load", "fails with it", "without", "runs", "caught"), *rows)
    print(f"\n{caught} of {len(chosen)} are caught")


def failures(regression: Regression, version: str) -> int:
    """How often the check fails with this version."""
    return [outcome(regression, version) for _ in range(regression.runs)].count("failed")


def outcome(regression: Regression, version: str) -> str:
    """The result of the check with this version of transformers."""
    report = CACHE / "report.json"
    report.unlink(missing_ok=True)
    python = environment(version, CACHE / "environments")
    command = [
        python, "-m", "pytest", "-p", "own_loads", "-p", "no:cacheprovider", f"--rootdir={CACHE}", "-c", "/dev/null",
        "--pyargs", "pytest_llmmem.checks", "-k", f"test_{regression.check}",
        f"--llm-model={checkpoint(regression.model, python)}", f"--llm-load={regression.load}", f"--llm-report={report}",
        # as llmmem check does: what the ranks need beside their parts is to repeat
        *([f"--llm-ranks={regression.ranks}", "--llm-malloc=steady"] if regression.ranks > 1 else ()),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=CACHE, env=os.environ | {"PYTHONPATH": str(HERE)}, capture_output=True, text=True, check=False
    )
    tests = json.loads(report.read_text())["tests"] if report.exists() else []
    tests = [test for test in tests if test["nodeid"].partition("::")[2].startswith(f"test_{regression.check}[")]
    if len(tests) != 1 or (tests[0]["outcome"] not in {"passed", "failed"}):
        sys.exit(done.stdout + done.stderr)
    CACHE.joinpath(f"{regression.check}-{regression.model.name}-{regression.load}-{version}.txt").write_text(
        done.stdout
    )
    return str(tests[0]["outcome"])


def checkpoint(model: Model, python: Path) -> Path:
    """The model's folder; made once. ``python`` has the package gguf where the model needs it."""
    folder = CACHE / "models" / model.name
    if not folder.exists():
        config = CACHE / f"{model.name}.json"
        config.write_text(json.dumps(model.config))
        synth = Path(sys.executable).with_name("llmmem"), "synth"
        run(*synth, config, folder, "--dtype", model.dtype, "--shard", model.shard, "--format", model.format)
        if model.gguf:
            run(python, HERE / "write_gguf.py", folder)
    return folder


if __name__ == "__main__":
    main()
