"""The checks of steps on sound training, again and again: false alarms, and the processor time of each check.

    python bench/step_checks.py                    # 30 times each, some 20 minutes of processor time
    python bench/step_checks.py --repeat 3 --model llama

Everything runs in one process, and the times of the first round, which imports, do not count. Checks with an adapter need peft.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator

from _run import table, verdict
from steps import BERT, LLAMA, NEOX, T5

from pytest_llmmem.models.steps.checks import CHECKS, NotApplicableError
from pytest_llmmem.models.steps.laboratory import Laboratory
from pytest_llmmem.models.steps.spec import PredictRequest, TrainSpec

MODELS = {"llama": LLAMA, "neox": NEOX, "bert": BERT, "t5": T5}
ALLOWED_S = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--model", action="append", choices=MODELS)
    arguments = parser.parse_args()
    names = arguments.model or list(MODELS)
    laboratories = {name: laboratory(name) for name in names}
    spent: dict[str, list[float]] = {}
    runs, alarms = 0, []
    for number in range(arguments.repeat):
        for name, place in laboratories.items():
            for check, seconds, complaint in run(place):
                runs += 1
                if number or arguments.repeat == 1:  # the first round imports, and fills caches
                    spent.setdefault(check, []).append(seconds)
                alarms += [f"{name} {check}: {complaint}"] if complaint else []
        print(f"round {number + 1}: {len(alarms)} false alarms", file=sys.stderr, flush=True)
    rows = [
        (
            check,
            str(len(of)),
            f"{statistics.median(of):.2f}",
            f"{max(of):.2f}",
            verdict(statistics.median(of) <= ALLOWED_S),
        )
        for check, of in spent.items()
    ]
    table(("check", "runs", "median cpu s", "largest", f"<= {ALLOWED_S} s"), *rows)
    print(f"false alarms: {len(alarms)} in {runs} runs of {', '.join(names)}")
    print(*alarms, sep="\n")


def laboratory(name: str) -> Laboratory:
    return Laboratory(request=PredictRequest(config=MODELS[name], step=TrainSpec(), dtype="bfloat16", device="cuda"))


def run(place: Laboratory) -> Iterator[tuple[str, float, str | None]]:
    """Each check that applies, with its processor time and its complaint."""
    for name, check in CHECKS.items():
        began = time.process_time()
        try:
            complaint = check(place)
        except NotApplicableError:
            continue
        yield name, time.process_time() - began, complaint


if __name__ == "__main__":
    main()
