"""Compare predicted with measured peaks, for every strategy with a 0.5B and a 1.3B checkpoint.

    python bench/estimates.py
    python bench/estimates.py --fill holes --load nf4 --load float16

int8 and nf4 need bitsandbytes, the largest load (float32 of 1.3B) 8.5 GB, and random weights 4 GB of disk.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from _run import MB, Session, session, table, verdict

from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.estimates.loader_versions import LOADS
from pytest_llmmem.models.sources.source import parse_source, resolve

TESTS = """
    import json
    import os
    from importlib.util import find_spec
    from pathlib import Path

    import pytest
    import torch

    from pytest_llmmem import probes


    @pytest.fixture
    def memory():
        # imported as the strategies do it, so that only the load is in the difference
        import accelerate

        if find_spec("bitsandbytes"):
            import bitsandbytes
        mappings = probes.mappings()
        memory = probes.open_memory(os.getpid(), mappings.files)
        return memory, memory.read_pages(), mappings.private, shared(mappings.private)


    def shared(spans):
        return probes.count_pages(os.getpid(), spans, "shared")


    def test_load(memory, loaded_model):
        memory, before, private, shared_before = memory
        loaded_model.touch()  # a forward of 8 tokens uses 8 rows of the embedding
        with torch.inference_mode():
            loaded_model.model(torch.ones(1, 8, dtype=torch.long))
        after = memory.read_pages()
        # the plugin has reset the mark after setup; inherited pages that were written to are not in it
        resident = after.mark_bytes - after.library_bytes - before.unreclaimable_bytes + shared_before - shared(private)
        Path(__file__).with_name("forward.json").write_text(json.dumps(resident))
"""
QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "torch_dtype": "bfloat16",
}
"""0.5B, and its embedding is the head too."""
GOAL = "within 5 % or 30 MB"
FILLS = ("holes", "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", action="append", choices=LOADS)
    parser.add_argument("--fill", action="append", choices=FILLS)
    parser.add_argument("--malloc", choices=("default", "steady"), default="steady")
    options = parser.parse_args()
    header = ("load", "count", "predicted MB", "measured MB", "difference", "ratio", GOAL)
    met = total = 0
    for fill in options.fill or FILLS:
        for source in (f"synthetic:qwen-0.5b?shard=300MB&fill={fill}", f"synthetic:polyglot-ko-1.3b?fill={fill}"):
            with session(TESTS) as tests:
                rows = list(measure(tests, source, options.load or LOADS, options.malloc))
            print(f"{source}\n")
            table(header, *rows)
            print()
            judged = [row[-1] for row in rows if row[-1]]
            met, total = met + judged.count(verdict(True)), total + len(judged)
    print(f"{met} of {total} {GOAL}")


def measure(tests: Session, source: str, loads: tuple[str, ...], malloc: str) -> Iterator[tuple[object, ...]]:
    """A row for each number of each load."""
    config = tests.folder / "qwen-0.5b" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps(QWEN))
    checkpoint = made(source, tests.folder)
    for load in loads:
        run = tests.run(
            "-p", "llmmem", f"--llm-model={checkpoint.path}", f"--llm-load={load}", f"--llm-malloc={malloc}"
        )
        (test,) = run.tests.values()
        if test["outcome"] != "passed":
            yield load, test["outcome"], "", "", "", "", ""
            continue
        yield from beside(checkpoint, load, test, json.loads((tests.folder / "forward.json").read_text()))


def made(source: str, folder: Path) -> Checkpoint:
    """A folder below that of the session, deleted with it."""
    return read_checkpoint(resolve(parse_source(source, base=folder), cache=folder / "cache"))


def beside(
    checkpoint: Checkpoint, load: str, test: Mapping[str, Any], forward_bytes: int
) -> Iterator[tuple[object, ...]]:
    predicted = checkpoint.estimate(load=load)
    (phase,) = (phase for phase in test["phases"] if phase["name"] == "load")
    pairs = {
        "unreclaimable": (predicted.peak_bytes, phase["peak_bytes"]),
        "resident": (predicted.peak_resident_bytes, phase["peak_resident_bytes"]),
        "first forward": (predicted.forward_resident_bytes, forward_bytes),
    }
    for count, (expected, actual) in pairs.items():
        if expected is None:
            yield load, count, "not predicted", f"{actual / MB:.0f}", "", "", ""
            continue
        difference = actual - expected
        is_near = abs(difference) <= max(30 * MB, 0.05 * actual)
        yield load, count, f"{expected / MB:.0f}", f"{actual / MB:.0f}", f"{difference / MB:+.0f}", f"{actual / expected:.3f}", verdict(is_near)  # fmt: skip


if __name__ == "__main__":
    main()
