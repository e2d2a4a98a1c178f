"""Compare known allocations on a GPU with the reported peaks; run crashes, fifty tests in a row, and four workers on one GPU.

    python bench/gpu.py

Needs a GPU of 24 GB that nothing else uses, torch for it, transformers and pytest-xdist. No card has run it yet.
"""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from _run import MB, Session, session, table, verdict

TESTS = """
    import ctypes
    import pathlib

    import pytest
    import torch

    MB = 1_000_000
    HERE = pathlib.Path(__file__).parent


    def take(megabytes):
        return torch.empty(megabytes * MB, dtype=torch.uint8, device="cuda:0")


    @pytest.fixture(autouse=True)
    def truth(request):
        # by the driver: what has gone since the context was there is what the allocator has reserved
        before, _ = torch.cuda.mem_get_info(0)
        yield
        after, _ = torch.cuda.mem_get_info(0)
        HERE.joinpath(f"{request.node.name}.truth").write_text(str(before - after))


    @pytest.fixture
    def model():
        return take(1000)


    def test_context():
        held = torch.empty(1, device="cuda:0")


    def test_one_tensor():
        held = take(2000)


    def test_small_tensors():
        held = [take(1) for _ in range(500)]  # two in each segment of 2 MiB


    def test_spike():
        held = take(3000)
        del held
        held = take(1000)


    def test_in_a_fixture(model):
        held = take(500)


    def test_refused():
        take(10_000_000)


    @pytest.mark.max_vram("1GB", enforce="cap")
    def test_capped():
        take(2000)


    def test_segfault():
        held = take(2000)
        ctypes.string_at(0)


    def test_after_the_segfault():
        held = take(2000)
"""
ALLOCATED = {
    "test_one_tensor": 2000, "test_small_tensors": 500, "test_spike": 3000, "test_in_a_fixture": 1500,
    "test_after_the_segfault": 2000,
}  # fmt: skip
"""MB that tensors hold at most."""
ROW = """
    import pathlib

    import pytest
    import torch


    @pytest.mark.parametrize("number", range(50))
    def test_it(number):
        free, total = torch.cuda.mem_get_info(0)
        with pathlib.Path(__file__).with_name("used").open("a") as file:
            print(total - free, file=file)
        held = torch.empty(1_000_000_000, dtype=torch.uint8, device="cuda:0")
"""
SHARED = """
    import pathlib
    import time

    import pytest
    import torch


    @pytest.mark.max_vram("30% device")
    @pytest.mark.parametrize("number", range(12))
    def test_it(number):
        began = time.monotonic()
        _, total = torch.cuda.mem_get_info(0)
        held = torch.empty(total // 4, dtype=torch.uint8, device="cuda:0")
        time.sleep(2)
        with pathlib.Path(__file__).with_name("spans").open("a") as file:
            print(began, time.monotonic(), file=file)
"""
FIT = 3
"""So many of these tests fit on a card together."""
LOAD = """
    import pytest


    @pytest.mark.max_vram("100% device")
    @pytest.mark.llm_load("float16", device_map="cuda:0")
    def test_load(loaded_model):
        assert loaded_model.nbytes_on("cuda:0") == loaded_model.nbytes
"""
OURS = ("-p", "llmmem", "--llm-isolate=all")
MIB = 2**20
GRAIN_BYTES = 2 * MIB
"""What the driver gives out at a time."""


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="synthetic:midm-7b", help="loaded onto the card")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no GPU: nothing was measured")
        return
    accuracy()
    fifty_in_a_row()
    four_workers()
    straight_to_the_card(options.model)


def accuracy() -> None:
    with session(TESTS) as tests:
        ran = tests.run(*OURS).tests
        truths = {name: int(tests.folder.joinpath(f"{name}.truth").read_text()) for name in ALLOCATED}
    bare = vram_of(ran, "test_context")
    context = (bare["peak_device_bytes"] or 0) - bare["peak_reserved_bytes"]
    rows = []
    for name, megabytes in ALLOCATED.items():
        vram = vram_of(ran, name)
        allocated = vram["peak_allocated_bytes"] / (megabytes * MB) - 1
        reserved = vram["peak_reserved_bytes"] - truths[name]
        device = (vram["peak_device_bytes"] or 0) - context - truths[name]
        within = abs(allocated) <= 0.01 and abs(reserved) <= GRAIN_BYTES and abs(device) <= GRAIN_BYTES
        rows.append(
            (name, megabytes, f"{allocated:+.2%}", f"{reserved / MIB:+.1f}", f"{device / MIB:+.1f}", verdict(within))
        )
    table(
        ("test", "MB", "allocated, off by", "reserved, off by (MiB)", "device without context, off by (MiB)", "within"),
        *rows,
    )
    print(f"\na context takes {context / MB:.0f} MB, by {bare['device_method']}")
    refused = ran["test_refused"]["vram_refused"] or {}
    asked = refused.get("asked_bytes", 0) / (10_000_000 * MB)
    print(f"\nan allocation of 10 TB was refused; read as {asked:.2%} of that: {verdict(abs(asked - 1) <= 0.01)}")
    diagnosis = ran["test_capped"]["diagnosis"] or {}
    print(f"2 GB under a cap of 1 GB: {diagnosis.get('id')}: {verdict(diagnosis.get('id') == 'cuda-capped')}")
    print(f"a segmentation fault: {ran['test_segfault']['ending']['signal']}, and the next test passed: "
          f"{verdict(ran['test_after_the_segfault']['outcome'] == 'passed')}")  # fmt: skip


def fifty_in_a_row() -> None:
    with session(ROW) as tests:
        tests.run(*OURS)
        used = [int(line) for line in (tests.folder / "used").read_text().split()]
    left = used[-1] - used[0]
    print(
        f"\n50 tests of 1 GB: the last found {left / MB:+.0f} MB beside what the first found: {verdict(left < 10 * MB)}"
    )


def four_workers() -> None:
    with session(SHARED, plugins="installed") as tests:
        alone = wall_s(tests, "-n1")
        tests.folder.joinpath("spans").unlink()
        together = wall_s(tests, "-n4")
        spans = [tuple(map(float, line.split())) for line in tests.folder.joinpath("spans").read_text().splitlines()]
    most = max(sum(begin <= start < end for begin, end in spans) for start, _ in spans)
    print(f"\n12 tests of 30 % of the card: 4 workers took {together / alone:.2f} of the time of 1, "
          f"and {most} ran at once, where {FIT} fit: {verdict(most == FIT)}")  # fmt: skip


def straight_to_the_card(model: str) -> None:
    with session(LOAD) as tests:
        ran = tests.run(*OURS, f"--llm-model={model}")
    (test,) = ran.tests.values()
    weights, host = test["model"]["weights_bytes"], test["ram"]["peak_bytes"]
    (vram,) = test["vram"]
    print(f"\n{model} to the card: allocated {vram['peak_allocated_bytes'] / weights:.3f} of its weights, "
          f"host {host / MB:.0f} MB unreclaimable: {verdict(host < 500 * MB)}")  # fmt: skip
    held = vram["peak_device_bytes"]
    print(
        "the driver was not asked"
        if held is None
        else f"the driver says {(held - vram['peak_reserved_bytes']) / MB:.0f} MB beside what is reserved, by {vram['device_method']}"
    )


def wall_s(tests: Session, workers: str) -> float:
    ran = tests.run(workers, "--llm-report=report.json")
    assert ran.code == 0, ran.output
    return ran.wall_s


def vram_of(ran: Mapping[str, Any], name: str) -> Mapping[str, int]:
    """The one device of a test. Raises ``SystemExit`` where none was read."""
    if not ran[name]["vram"]:
        msg = f"{name} read no device: {json.dumps(ran[name], indent=1)}"
        raise SystemExit(msg)
    vram: Mapping[str, int] = ran[name]["vram"][0]
    return vram


if __name__ == "__main__":
    main()
