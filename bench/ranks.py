"""Time of a test in ranks, beside its slowest rank and beside the same load under torchrun.

python bench/ranks.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _run import session, table, verdict

TESTS = """
    import pytest
    import torch

    pytestmark = pytest.mark.in_worker(timeout=120)


    @pytest.mark.llm_load("tensor_parallel")
    @pytest.mark.parametrize("number", range({groups}))
    @pytest.mark.parametrize("count", [pytest.param(count, marks=pytest.mark.in_worker(ranks=count)) for count in (2, 4)])
    def test_load(loaded_model, number, count):
        with torch.inference_mode():
            loaded_model.model(torch.ones(1, 8, dtype=torch.long))
"""
SCRIPT = """
import os, sys, torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

dist.init_process_group("gloo")
config = DistributedConfig(tp_size=int(os.environ["WORLD_SIZE"]), tp_plan="auto")
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], distributed_config=config)
with torch.inference_mode():
    model(torch.ones(1, 8, dtype=torch.long))
"""
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 8192,
    "torch_dtype": "bfloat16",
}
GROUP_COST = 1.5
OF_TORCHRUN = 0.05
LAUNCHES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=20, help="of 2 ranks, and as many of 4")
    options = parser.parse_args()
    with session(TESTS.format(groups=options.groups)) as tests:
        config, checkpoint = tests.folder / "config.json", tests.folder / "checkpoint"
        tests.write(config.name, json.dumps(LLAMA))
        llmmem = (sys.executable, "-m", "pytest_llmmem")
        subprocess.run([*llmmem, "synth", config, checkpoint], check=True, capture_output=True)
        tests.write("load.py", SCRIPT)
        run = tests.run("-p", "llmmem", f"--llm-model={checkpoint}")
        launches = [launched_s(tests.folder / "load.py", checkpoint) for _ in range(LAUNCHES)]
    done = list(run.tests.values())
    passed = {
        count: sum(len(test["ranks"]) == count and test["outcome"] == "passed" for test in done) for count in (2, 4)
    }
    cost = statistics.median(test["duration_s"] / slowest_s(test) for test in done)
    group_s = statistics.median(test["duration_s"] for test in done if len(test["ranks"]) == 2)
    launch_s = statistics.median(launches)
    table(
        ("a load over ranks and a forward", "measured", "goal", "met"),
        *(
            (f"groups of {count} that passed", f"{passed[count]} of {options.groups}", "all", verdict(passed[count] == options.groups))
            for count in passed
        ),
        ("a group / its slowest rank", f"{cost:.2f}", f"<= {GROUP_COST}", verdict(cost <= GROUP_COST)),
        ("seconds of a group of 2", f"{group_s:.2f}", "", ""),
        ("seconds of torchrun with 2", f"{launch_s:.2f}", "", ""),
        ("group / torchrun", f"{group_s / launch_s:.3f}", f"<= {OF_TORCHRUN}", verdict(group_s / launch_s <= OF_TORCHRUN)),
    )  # fmt: skip


def slowest_s(test: Mapping[str, Any]) -> float:
    """The test in its slowest rank, from its beginning to its last sample."""
    return float(max(rank["timeline"]["seconds"][-1] for rank in test["ranks"]))


def launched_s(script: Path, checkpoint: Path) -> float:
    """Wall time of the same load in a launch of its own."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
    began = time.perf_counter()
    subprocess.run([*launcher, str(script), str(checkpoint)], check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
