"""Cost of following a load: one record per tensor.

    python bench/following.py

It costs so much a file and a tensor, however large they are, and nothing else. So it is measured where reading is little
else, on as many small tensors, read as transformers reads them, followed and not; and is told as a share of whole loads.
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

from _run import Middle, interleave, table, verdict

from pytest_llmmem.models.loading.load_tracing import follow_load
from pytest_llmmem.models.sources.synthetic import SyntheticSpec, write_synthetic
from pytest_llmmem.workers.load_progress import LoadProgress

CONFIG = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "max_position_embeddings": 2048,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
}
USUAL = {"hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 50304}
"""405 million parameters, as in Pythia-410M: 0.81 GB in bfloat16, in five shards."""
SMALL = {"hidden_size": 64, "intermediate_size": 256, "vocab_size": 512}
"""As many tensors, of 2.5 MB together, in five shards."""
SHARDS = 5
DTYPES = {"mapped": "bfloat16", "cast": "float32"}
LOADS, WARM = 7, 20
NOTES = 100_000
GOAL = 0.02
GOAL_NS = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = LoadProgress.create(Path(folder, "place"))
        usual, small = make(Path(folder, "usual"), USUAL), make(Path(folder, "small"), SMALL)
        load_s(usual, "bfloat16")  # reads the files, and imports what the first load imports
        loads_s = {
            kind: statistics.median(load_s(usual, dtype) for _ in range(LOADS)) for kind, dtype in DTYPES.items()
        }
        variants = {
            "followed": partial(read_s, small, partial(follow_load, place.write)),
            "plain": partial(read_s, small, nullcontext),
        }
        interleave(variants, WARM)
        times = interleave(variants, options.rounds)
        noted: list[tuple[str, str]] = []
        read_s(small, partial(follow_load, lambda *note: noted.append(note)))
        note_ns = nanoseconds_per_note(place)
        place.close()
    added_s = [followed - plain for followed, plain in zip(times["followed"], times["plain"], strict=True)]
    rows = []
    for kind, whole_s in loads_s.items():
        share = Middle.of(added / whole_s for added in added_s)
        rows.append((f"of a load of {whole_s:.2f} s, {kind}", f"{share:.2%}", f"<= {GOAL:.0%}", share.at_most(GOAL)))
    table(
        ("following", "measured", "goal", "met"),
        *rows,
        ("one note", f"{note_ns:.0f} ns", f"<= {GOAL_NS} ns", verdict(note_ns <= GOAL_NS)),
    )
    print(
        f"\ntensors noted: {len({note for note in noted if note[1]})}, in {len({note[0] for note in noted if note[0]})} shards"
    )


def make(folder: Path, sizes: dict[str, int]) -> Path:
    """A checkpoint with random numbers, in shards of about the same size."""
    layers = (
        CONFIG["num_hidden_layers"] * sizes["hidden_size"] * (4 * sizes["hidden_size"] + 2 * sizes["intermediate_size"])
    )
    spec = SyntheticSpec(
        name=folder.name,
        config_json=json.dumps(CONFIG | sizes),
        dtype="bfloat16",
        shard_bytes=2 * (layers + 2 * sizes["vocab_size"] * sizes["hidden_size"]) // (SHARDS - 1),
        fill="random",
    )
    write_synthetic(spec, folder)
    return folder


def load_s(checkpoint: Path, dtype: str) -> float:
    """Seconds of one load."""
    import torch
    from transformers import GPTNeoXForCausalLM

    gc.collect()
    began = time.perf_counter()
    GPTNeoXForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype))
    return time.perf_counter() - began


def read_s(checkpoint: Path, follow: Callable[[], AbstractContextManager[None]]) -> float:
    """Seconds of reading every tensor of every shard, with finding the libraries' functions where it is followed."""
    import safetensors

    shards = sorted(checkpoint.glob("*.safetensors"))
    began = time.perf_counter()
    with follow():
        for shard in shards:
            with safetensors.safe_open(shard, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 -- it is no dictionary
                    file.get_slice(name)[...]
    return time.perf_counter() - began


def nanoseconds_per_note(place: LoadProgress) -> float:
    began = time.perf_counter()
    for _ in range(NOTES):
        place.write("model-00002-of-00005.safetensors", "gpt_neox.layers.11.mlp.dense_h_to_4h.weight")
    return 1e9 * (time.perf_counter() - began) / NOTES


if __name__ == "__main__":
    main()
