"""``llmmem fit`` against a bisection: the smallest limit on growth in which a model of 374 MB still loads and runs.

    python bench/fit.py [LOAD ...]    default, float32, offload, int8 where bitsandbytes is installed, and train

Needs a writable memory control group and torch. Some ten runs for each load.
"""

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from _run import MB, table, verdict

from pytest_llmmem.fit.measuring import measure, run_limited
from pytest_llmmem.fit.verdict import verdict_of
from pytest_llmmem.fit.verifying import drop_page_cache
from pytest_llmmem.fit.workload import Workload
from pytest_llmmem.models.steps.spec import TrainSpec

LOADS = ("default", "float32", "offload", *(["int8"] if find_spec("bitsandbytes") else []), "train")
"""``train`` is a training step of 64 tokens after ``float32``."""


def make(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=12,
        num_attention_heads=16,
        num_key_value_heads=16,
        vocab_size=16000,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="120MB")


def bisect(workload: Workload, low: int, high: int, *, within: int, timeout_s: float) -> tuple[int, int]:
    runs = 0
    while high - low > within:
        middle = (low + high) // 2
        drop_page_cache(workload.folder)
        limited = run_limited(workload.shortest(), middle, timeout_s=timeout_s)
        runs += 1
        print(
            f"    {workload.load} {middle / MB:.0f} MB: {'lives' if limited.lived else 'dies'}{'' if limited.finished else ', unfinished'}, {(limited.refaulted_bytes or 0) / MB:.0f} MB read again",
            flush=True,
        )
        low, high = (low, middle) if limited.finished else (middle, high)
    return high, runs


def main(loads: tuple[str, ...]) -> None:
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name, "model")
        make(folder)
        for load in loads:
            drop_page_cache(folder)
            train = TrainSpec(seq_len=64) if load == "train" else None
            workload = Workload(folder=folder, load="float32" if train else load, train=train)
            measured = measure(workload)
            found = verdict_of(measured)
            base = measured.base_unreclaimable_bytes
            # to 1 %: finer for what grows little
            within = max(6 * MB, found.dies_below_bytes // 100)
            timeout_s = max(300, 10 * measured.seconds(workload))
            low, high = found.growth_dies_bytes // 2, 2 * found.growth_dies_bytes
            smallest, runs = bisect(workload, low, high, within=within, timeout_s=timeout_s)
            ratio = found.dies_below_bytes / (base + smallest)
            rows.append((load, f"{base / MB:.0f} MB", f"{measured.peak_bytes / MB:.0f} MB", f"{found.dies_below_bytes / MB:.0f} MB",
                         f"{(base + smallest) / MB:.0f} MB", f"{ratio:.3f}", runs, verdict(abs(ratio - 1) <= 0.05)))  # fmt: skip
    table(("load", "base", "grows by", "dies below", "by bisection", "ratio", "runs", "within 5%"), *rows)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or LOADS)
