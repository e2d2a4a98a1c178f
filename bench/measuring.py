"""What is known beforehand, measured by ``measure`` and ``memory_growth`` while a loop keeps one core busy.

python bench/measuring.py
"""

import argparse
import statistics
import time

import torch  # noqa: TID253 -- forked workers are to find it imported
import transformers  # noqa: TID253 -- as above
from _run import MB, busy_core, table, verdict

from pytest_llmmem import MemoryGrowth, measure, memory_growth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with busy_core():
        # each in a process of its own, as a test is
        leaks = [grown(leak) for _ in range(rounds)]
        caches = [grown(cache) for _ in range(rounds)]
        loops = [grown(generate) for _ in range(rounds)]
        plain = [measure(step, checkpointing=False).check().peak_bytes for _ in range(5)]
        saving = [measure(step, checkpointing=True).check().peak_bytes for _ in range(5)]
        began = time.perf_counter()
        for _ in range(rounds):
            measure(int)
        seconds = (time.perf_counter() - began) / rounds
    worst = max((abs(leak.per_call_bytes - MB) for leak in leaks), default=0)
    table(
        ("growth a call", "median", "error printed", "within", "goal", "met"),
        row("a list that keeps 1 MB", leaks, f"{worst / MB:.1%} off at most", "5%", worst <= 0.05 * MB),
        row("a cache that fills up and stops", caches, still(caches), f"{rounds} of {rounds}", all_still(caches)),
        row("a clean generate loop", loops, still(loops), f"{rounds} of {rounds}", all_still(loops)),
    )
    print()
    table(
        ("peak of a training step, forked", "median MB", "spread", "goal", "met"),
        *(
            (name, f"{statistics.median(peaks) / MB:.1f}", f"{spread(peaks):.2%}", "1%", verdict(spread(peaks) <= 0.01))
            for name, peaks in (("plain", plain), ("with checkpointing", saving))
        ),
    )
    print(f"\nmeasure(int), torch and transformers imported: {seconds * 1000:.0f} ms a call")


def grown(function) -> MemoryGrowth:
    return measure(function).check().value


def leak() -> MemoryGrowth:
    kept = []
    return memory_growth(lambda: kept.append(b"x" * MB))


def cache() -> MemoryGrowth:
    filled = {}

    def call():
        if len(filled) < 3:
            filled[len(filled)] = b"x" * 5 * MB

    return memory_growth(call)


def generate() -> MemoryGrowth:
    torch.set_num_threads(1)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 500}
    config = transformers.LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=4, pad_token_id=0)
    model = transformers.LlamaForCausalLM(config).eval()
    tokens = torch.arange(8).unsqueeze(0)
    return memory_growth(lambda: model.generate(tokens, max_new_tokens=8, do_sample=False))


def step(*, checkpointing: bool) -> None:
    from torch.utils.checkpoint import checkpoint_sequential

    torch.set_num_threads(1)
    layers = torch.nn.Sequential(*(torch.nn.Linear(512, 512) for _ in range(16)))
    batch = torch.ones(4096, 512)
    output = checkpoint_sequential(layers, 4, batch, use_reentrant=False) if checkpointing else layers(batch)
    output.sum().backward()


def is_still(growth: MemoryGrowth) -> bool:
    return abs(growth.per_call_bytes) <= growth.error_bytes


def still(growths: list[MemoryGrowth]) -> str:
    return f"{sum(map(is_still, growths))} of {len(growths)}"


def all_still(growths: list[MemoryGrowth]) -> bool:
    return all(map(is_still, growths))


def row(name: str, growths: list[MemoryGrowth], within: str, goal: str, met: bool) -> tuple[object, ...]:
    median = statistics.median(growth.per_call_bytes for growth in growths)
    error = max(growth.error_bytes for growth in growths)
    return name, f"{median / 1000:.1f} kB", f"± {error / 1000:.1f} kB", within, goal, verdict(met)


def spread(peaks: list[int]) -> float:
    return (max(peaks) - min(peaks)) / statistics.median(peaks)


if __name__ == "__main__":
    main()
