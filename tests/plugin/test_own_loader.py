"""``--llm-loader`` and ``llm_load(loader=...)``: a plain module, or a dict, loaded by a function of the user's own."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_llmmem.models.checkpoints.tensors import tensor
from pytest_llmmem.models.checkpoints.torch_file import write_holes
from tests.conftest import Run, needs

pytestmark = needs("torch")

SERVING = """
import torch
from torch import nn


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(2000, 64)
        self.head = nn.Linear(64, 2000, bias=False)

    def forward(self, ids):
        return self.head(self.embed(ids))


def load(path, copies=0):
    state = torch.load(path / "pytorch_model.bin", map_location="cpu", weights_only=True, mmap=True)
    with torch.device("meta"):
        model = Plain()
    model.load_state_dict(state, assign=True)
    model.spare = [[p.detach().clone() for p in model.parameters()] for _ in range(copies)]
    return model.eval()


def nothing(path):
    pass


def fails(path):
    raise OSError("the bucket is gone")
"""


@pytest.fixture
def checkpoint(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with the weights of a plain module and no config, and the module that loads it."""
    pytester.makepyfile(serving=SERVING)
    monkeypatch.setenv("PYTHONPATH", f"{pytester.path}:{':'.join(sys.path)}")
    folder = pytester.path / "ckpt"
    folder.mkdir()
    weights = [tensor(name, "float32", (2000, 64)) for name in ("embed.weight", "head.weight")]
    write_holes(folder / "pytorch_model.bin", weights)
    return f"--llm-model={folder}"


def test_a_plain_module_is_a_loaded_model(run: Callable[..., Run], checkpoint: str) -> None:
    ran = run(
        """
        import pytest, torch
        import serving

        @pytest.mark.max_ram("weights + 200MB")
        def test_session(loaded_model):
            assert loaded_model.nbytes == loaded_model.checkpoint.weights_bytes == 2 * 2000 * 64 * 4
            assert loaded_model.dtype == torch.float32
            assert loaded_model.device_map == {"": "cpu"}
            assert loaded_model.bits_per_parameter == 32
            assert loaded_model.copies is not None
            assert loaded_model.call.startswith("serving.load(")
            loaded_model.model(torch.ones(1, 8, dtype=torch.long))

        @pytest.mark.llm_load(loader=serving.load, copies=2)
        def test_marked(loaded_model):
            assert loaded_model.nbytes == 3 * loaded_model.checkpoint.weights_bytes
            assert loaded_model.call.endswith("copies=2)")

        @pytest.mark.llm_load(loader="serving:load")
        def test_named(loaded_model): pass
        """,
        checkpoint, "--llm-loader=serving:load",
    )  # fmt: skip

    ran.result.assert_outcomes(passed=3)
    assert {test.model.load for test in ran.record.tests if test.model} == {"serving:load"}


def test_loaders_that_cannot_be_used_fail_their_test_in_one_sentence(run: Callable[..., Run], checkpoint: str) -> None:
    ran = run(
        """
        import pytest
        import serving

        @pytest.mark.llm_load(loader=serving.nothing)
        def test_nothing(loaded_model): pass

        @pytest.mark.llm_load(loader=serving.fails)
        def test_fails(loaded_model): pass

        @pytest.mark.llm_load(loader=serving.load, copeis=1)
        def test_misspelt(loaded_model): pass

        @pytest.mark.llm_load("float16", loader=serving.load)
        def test_two(loaded_model): pass

        @pytest.mark.llm_load(loader=3)
        def test_none(loaded_model): pass
        """,
        checkpoint,
    )

    ran.result.assert_outcomes(failed=3, errors=2)
    ran.result.stdout.fnmatch_lines_random([
        "the loader serving:nothing returned None, which has no tensors: return the model, or whatever holds them",
        "serving.py:*: OSError",
        "llm_load: serving:load takes no argument 'copeis': did you mean 'copies'?",
        "llm_load: 'float16' and loader= are two ways to load: leave one of them out",
        "llm_load: 3 is not a function: give one from a path to a model",
    ])  # fmt: skip
    ran.result.stdout.no_fnmatch_line("*call_loader*")


@pytest.mark.parametrize(
    ("loader", "sentence"),
    [
        ("serving", "ERROR: --llm-loader: 'serving' does not name a function: write 'package.module:function'"),
        ("serving:laod", "ERROR: --llm-loader: 'serving:laod': serving has no 'laod': did you mean 'load'?"),
    ],
)
def test_a_loader_that_is_none_stops_the_session(
    run: Callable[..., Run], checkpoint: str, loader: str, sentence: str
) -> None:
    ran = run("def test_it(loaded_model): pass", checkpoint, f"--llm-loader={loader}")

    assert ran.result.ret == pytest.ExitCode.USAGE_ERROR
    ran.result.stderr.fnmatch_lines([sentence.replace("[", "[[]")])


@needs("typer")
def test_the_command_line_tries_and_checks_with_a_loader(checkpoint: str, pytester: pytest.Pytester) -> None:
    folder = checkpoint.removeprefix("--llm-model=")

    def llmmem(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest_llmmem", *arguments]
        return subprocess.run(command, cwd=pytester.path, text=True, capture_output=True, timeout=120, check=False)

    tried = llmmem("try", folder, "--max-ram=300MB", "--loader=serving:load", "--json")
    assert json.loads(tried.stdout)["fits"] == "serving:load", tried.stderr
    wrong = llmmem("check", folder, "--loader=serving:laod")
    assert wrong.returncode == 2
    assert "--loader: 'serving:laod': serving has no 'laod'" in wrong.stderr


def test_a_loader_in_the_ini_file(run: Callable[..., Run], checkpoint: str, pytester: pytest.Pytester) -> None:
    Path(pytester.path, "pytest.ini").write_text("[pytest]\nllm_loader = serving:load\n", encoding="utf-8")

    ran = run("def test_it(loaded_model): assert loaded_model.load == 'serving:load'", checkpoint)

    ran.result.assert_outcomes(passed=1)


@pytest.mark.parametrize(("loads", "outcome"), [(["ours"], "passed"), (["ours", "default"], "failed")])
def test_a_strategy_of_ones_own_needs_no_config(
    run: Callable[..., Run], checkpoint: str, pytester: pytest.Pytester, loads: list[str], outcome: str
) -> None:
    pytester.makeconftest(
        """
        import serving
        from pytest_llmmem import Strategy

        def pytest_llmmem_strategies():
            return [Strategy(name="ours", summary="as our server does it", load=lambda asked: serving.load(asked.checkpoint.path))]
        """
    )

    options = [f"--llm-load={load}" for load in loads]
    ran = run("from pytest_llmmem.checks import *", checkpoint, *options, "-k", "integrity")

    ran.result.assert_outcomes(**{outcome: 1})
