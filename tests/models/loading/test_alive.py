"""What torch's objects of this process hold."""

import ast
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import Run, needs

linux = needs("real-time signals")


@needs("torch")
def test_models_gradients_and_optimizers_are_told_apart_and_count_once() -> None:
    script = """
import torch
from pytest_llmmem.models.loading.alive import objects_alive

class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = (torch.nn.Linear(1000, 1000, bias=False) for _ in range(2))
        self.two.weight = self.one.weight

models = [Tied(), Tied()]
optimizer = torch.optim.AdamW(models[0].parameters(), foreach=False)
models[0].one(torch.ones(1, 1000)).sum().backward()
optimizer.step()
loose = torch.ones(3_000_000)
view = loose[1000:]
small = torch.ones(1000)
print({each.name: (each.count, round(each.bytes / 1e6)) for each in objects_alive()})
"""

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)

    assert ast.literal_eval(done.stdout) == {
        "other tensors": (None, 12),
        "Tied": (2, 8),
        "AdamW state": (1, 8),
        "gradients": (None, 4),
    }


def test_nothing_is_imported_to_find_out() -> None:
    script = (
        "import sys; from pytest_llmmem.models.loading.alive import objects_alive\n"
        "assert objects_alive() == () and 'torch' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@linux
@needs("torch")
@pytest.mark.parametrize("more", [0, 200], ids=["finishes", "is stopped"])
def test_a_breach_names_what_is_alive(run: Callable[..., Run], more: int) -> None:
    ran = run(
        f"""
        import time
        import pytest
        import torch

        @pytest.mark.max_ram("150MB")
        def test_it():
            model = torch.nn.Linear(5000, 5000)
            held = [bytearray(80_000_000)]
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline:
                pass
            held.append(bytearray({more} * 1_000_000))
        """
    )

    record = ran["test_it"]
    assert record.ending.kind == "over_budget"
    assert [(each.name, each.count) for each in record.alive] == [("Linear", 1)]
    assert abs(record.alive[0].bytes - 100_020_000) < 100
    ran.result.stdout.fnmatch_lines(["alive     1 Linear 100 MB"])
