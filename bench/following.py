"""What following a load costs: the same loads with and without a note of each tensor on the page of its place.

    python bench/following.py

Each plain load is made twice: the ratio of the two says how far the others can be trusted on this machine.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from _run import interleave, table, verdict

from pytest_llmmem.models.following import follow_load
from pytest_llmmem.models.synthetic import SyntheticSpec, write_synthetic
from pytest_llmmem.workers.place import PlaceFile

CONFIG = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "vocab_size": 50304,
    "max_position_embeddings": 2048,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
}
"""405 million parameters, as in Pythia-410M: 0.81 GB in bfloat16."""
SHARD_BYTES = 200_000_000
NOTES = 100_000
GOAL = 1.02
GOAL_NS = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = PlaceFile.create(Path(folder, "place"))
        checkpoint = Path(folder, "made")
        write_synthetic(
            SyntheticSpec(
                name="neox-405m",
                config_json=json.dumps(CONFIG),
                dtype="bfloat16",
                shard_bytes=SHARD_BYTES,
                fill="random",
            ),
            checkpoint,
        )
        variants = {
            f"{kind}, {how}": partial(load_s, checkpoint, dtype, follow)
            for kind, dtype in (("mapped", "bfloat16"), ("cast", "float32"))
            for how, follow in (
                ("plain", nullcontext),
                ("followed", partial(follow_load, place.write)),
                ("plain again", nullcontext),
            )
        }
        interleave(variants, 1)  # reads the files once, and imports what the first load imports
        seconds = {name: statistics.median(times) for name, times in interleave(variants, options.rounds).items()}
        noted: list[tuple[str, str]] = []
        load_s(checkpoint, "bfloat16", partial(follow_load, lambda *note: noted.append(note)))
        note_ns = nanoseconds_per_note(place)
        place.close()
    rows = []
    for kind in ("mapped", "cast"):
        ratio = seconds[f"{kind}, followed"] / seconds[f"{kind}, plain"]
        noise = seconds[f"{kind}, plain again"] / seconds[f"{kind}, plain"]
        rows.append((f"load, {kind}: followed / plain", f"{ratio:.3f}", f"<= {GOAL}", verdict(ratio <= GOAL)))
        rows.append((f"load, {kind}: plain / plain", f"{noise:.3f}", "", ""))
    rows.append(("one note", f"{note_ns:.0f} ns", f"<= {GOAL_NS} ns", verdict(note_ns <= GOAL_NS)))
    table(("following", "measured", "goal", "met"), *rows)
    print("\nseconds: " + ", ".join(f"{name} {value:.3f}" for name, value in seconds.items()))
    print(f"tensors noted: {len({note for note in noted if note[1]})}")


def load_s(checkpoint: Path, dtype: str, follow: Callable[[], AbstractContextManager[None]]) -> float:
    """Seconds of one load, with finding the libraries' functions and putting them back where it is followed."""
    import torch
    from transformers import GPTNeoXForCausalLM

    gc.collect()
    began = time.perf_counter()
    with follow():
        GPTNeoXForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype))
    return time.perf_counter() - began


def nanoseconds_per_note(place: PlaceFile) -> float:
    began = time.perf_counter()
    for _ in range(NOTES):
        place.write("model-00002-of-00005.safetensors", "gpt_neox.layers.11.mlp.dense_h_to_4h.weight")
    return 1e9 * (time.perf_counter() - began) / NOTES


if __name__ == "__main__":
    main()
