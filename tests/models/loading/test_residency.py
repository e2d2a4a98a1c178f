"""Which pages of a model are in memory, beside what the kernel's own account says."""

import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.models.loading.residency import freed_nbytes, mapped_nbytes, touch, trim
from tests.conftest import needs

pytestmark = [
    needs("torch", "safetensors"),
    needs("/proc"),
]


def mapped(path: Path, *, tensors: int = 4, mib: int = 2) -> Any:
    """A module whose weights are mapped from a file of holes."""
    import torch
    from safetensors.torch import load_file, save_file

    save_file({str(number): torch.zeros(mib, 2**20, dtype=torch.uint8) for number in range(tensors)}, path)
    return torch.nn.ParameterList(
        torch.nn.Parameter(tensor, requires_grad=False) for tensor in load_file(path).values()
    )


def test_what_is_freed_and_kept_is_told() -> None:
    if freed_nbytes() is None:
        pytest.skip("the C library does not say")
    program = """
from pytest_llmmem.models.loading.residency import freed_nbytes
before = freed_nbytes()
blocks = [bytearray(100_000) for _ in range(300)]  # below glibc's first mmap threshold
held = freed_nbytes()
del blocks[:-1]  # the last one keeps what is below it from being given back
print(before, held, freed_nbytes())
"""
    before, held, after = map(int, subprocess.check_output([sys.executable, "-c", program], text=True).split())

    assert abs(held - before) < 1_000_000
    assert after - held == pytest.approx(30_000_000, abs=1_000_000)


def absent_by_smaps(path: Path) -> int:
    """Size minus resident size of the file's maps."""
    absent, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            ours = line.endswith(str(path))
        elif ours and name in {"Size:", "Rss:"}:
            absent += (1 if name == "Size:" else -1) * int(rest[0]) * 1024
    return absent


def test_mapped_weights_are_absent_until_they_are_touched(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    model = mapped(path)

    ours, the_kernel_s = mapped_nbytes(model), absent_by_smaps(path)
    touch(model)

    assert ours is not None
    assert ours > 2**20
    assert abs(ours - the_kernel_s) <= 2 * mmap.PAGESIZE  # the file's header
    assert mapped_nbytes(model) == 0


def test_weights_that_the_model_does_not_use_do_not_count(tmp_path: Path) -> None:
    import torch

    model = mapped(tmp_path / "weights")
    half = torch.nn.ParameterList(list(model)[:2])

    assert (mapped_nbytes(half) or 0) < (mapped_nbytes(model) or 0)
    touch(half)
    assert mapped_nbytes(half) == 0
    assert mapped_nbytes(model) > 0


def test_weights_in_plain_memory_are_not_mapped(tmp_path: Path) -> None:
    import torch

    assert mapped_nbytes(torch.nn.Linear(1000, 1000)) == 0
    assert mapped_nbytes(torch.nn.Linear(2, 2, device="meta")) == 0


def test_trimming_twice_is_harmless() -> None:
    trim()
    trim()
