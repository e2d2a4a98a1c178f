"""Cost of the ready-made checks: ``llmmem check``, compared with its loads in one process without the plugin.

python bench/checks.py [--model synthetic:polyglot-ko-1.3b]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from _run import interleave, table, verdict

from pytest_llmmem.models.sources.cache import cache_folder
from pytest_llmmem.models.sources.source import parse_source, resolve

GOAL = 1.5
LOADS_OF = {"load": 1, "release": 1, "second_load": 2, "disk": 1}
"""The other checks look at the first load, or at no load."""
BARE = """
import sys, time
began = time.perf_counter()
import torch, transformers
folder, dtype, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
options = {} if dtype == "default" else {"dtype": dtype}
for _ in range(times):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
    del model
print(time.perf_counter() - began)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic:polyglot-ko-1.3b")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = resolve(parse_source(options.model, base=Path.cwd()), cache=cache_folder())
    rows = []
    for load in ("default", "bfloat16"):
        _, loads = check(options.model, load)
        variants = {
            "check": lambda load=load: check(options.model, load)[0],
            "bare": lambda load=load, loads=loads: bare(folder, load, loads),
        }
        seconds = interleave(variants, options.rounds)
        checked_s, bare_s = (statistics.median(seconds[name]) for name in variants)
        ratio = checked_s / bare_s
        rows.append(
            (load, loads, f"{checked_s:.1f}", f"{bare_s:.1f}", f"{ratio:.2f}", f"<= {GOAL}", verdict(ratio <= GOAL))
        )
    print(options.model)
    table(("load", "loads", "llmmem check, s", "bare loads, s", "ratio", "goal", "met"), *rows)


def check(model: str, load: str) -> tuple[float, int]:
    """Seconds of all checks, and how many loads they made."""
    began = time.perf_counter()
    command = [Path(sys.executable).with_name("llmmem"), "check", model, "--load", load, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    return seconds, sum(LOADS_OF.get(each["id"], 0) for each in json.loads(done.stdout)["checks"])


def bare(folder: Path, load: str, times: int) -> float:
    """Seconds of as many loads in one process, its start and imports included."""
    command = [sys.executable, "-c", BARE, str(folder), load, str(times)]
    began = time.perf_counter()
    subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
