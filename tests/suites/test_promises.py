"""The ready-made checks of what a load promises: each fails for the fault that it is for, and for no other."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, needs
from tests.models.loading.sample_loads import TIED, written

pytestmark = needs("torch", "transformers", "safetensors")

LOADERS = """
import torch
from pytest_llmmem.models.loading.strategy import Strategy


def untied(request):
    model = request.from_pretrained()
    model.lm_head.weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    return model


def kept(request):
    model = request.from_pretrained()
    model.spare = [parameter.detach().clone() for parameter in model.parameters()]
    return model


def initialized(request):
    model = request.from_pretrained()
    torch.nn.init.normal_(model.model.layers[0].mlp.up_proj.weight)
    return model


def leaking(request):
    model = request.from_pretrained()
    model.outputs = []
    model.register_forward_hook(lambda *_: model.outputs.append(torch.ones(3_000_000)))
    return model


def pytest_llmmem_strategies():
    return [Strategy(name=each.__name__, summary="", load=each) for each in (untied, kept, initialized, leaking)]
"""


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    """A model of 14 MB whose head is its embedding; torch is not imported here, which bears no second import."""
    config = TIED | {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "vocab_size": 24_000}
    return written(tmp_path, config, shard_bytes=10**9).path


def test_each_check_fails_for_the_fault_that_it_is_for(
    run: Callable[..., Run], pytester: pytest.Pytester, tied: Path
) -> None:
    pytester.makeconftest(LOADERS)
    loads = ["default", "untied", "kept", "initialized", "leaking"]

    ran = run(
        "from pytest_llmmem.suites.promises import *\nfrom pytest_llmmem.suites.checks import skips_as_asked, pytestmark",
        f"--llm-model={tied}", *(f"--llm-load={load}" for load in loads), "--llm-scope=module", timeout_s=240,
    )  # fmt: skip

    failed = {test.nodeid.rpartition("::")[2] for test in ran.record.tests if test.outcome not in {"passed", "skipped"}}
    assert failed == {
        "test_keys[made-untied]", "test_size[made-untied]", "test_save[made-untied]",
        "test_size[made-kept]",
        "test_keys[made-initialized]",
        "test_stays[made-leaking]",
    }  # fmt: skip
    ran.result.stdout.fnmatch_lines_random([
        "weights not in the checkpoint (initialized anew, or a tie that was lost): lm_head.weight",
        "weights with other numbers than in the checkpoint: model.layers.0.mlp.up_proj.weight",
        "the model holds * MB, and its checkpoint is * more. * are in attributes beside the parameters: a copy*",
        "saving wrote * of weights, and the checkpoint has *. Not in the checkpoint: lm_head.weight: a tie was lost*",
        "three forward passes left 36* behind: something keeps what each of them makes*",
    ])  # fmt: skip


def test_a_strategy_of_a_team_is_judged_by_the_dtype_and_the_bits_that_it_promises(
    run: Callable[..., Run], pytester: pytest.Pytester, tied: Path
) -> None:
    pytester.makeconftest(
        """
        from pytest_llmmem import Strategy

        def pytest_llmmem_strategies():
            half = Strategy(name="half", summary="", dtype="float16", load=lambda request: request.from_pretrained())
            quarter = Strategy(name="quarter", summary="", bits=4, load=lambda request: request.from_pretrained())
            return [half, quarter]
        """
    )

    ran = run(
        "from pytest_llmmem.suites.checks import test_dtype, test_quantization",
        f"--llm-model={tied}", "--llm-load=half", "--llm-load=quarter", "--llm-scope=module", timeout_s=240,
    )  # fmt: skip

    outcomes = {test.nodeid.rpartition("::")[2]: test.outcome for test in ran.record.tests}
    assert outcomes == {
        "test_dtype[made-half]": "failed", "test_quantization[made-half]": "skipped",
        "test_dtype[made-quarter]": "passed", "test_quantization[made-quarter]": "failed",
    }  # fmt: skip


def test_a_tensor_that_the_checkpoint_lacks_is_found_in_the_loading_report(
    run: Callable[..., Run], pytester: pytest.Pytester, tied: Path
) -> None:
    change = f"""
import torch
from safetensors.torch import load, save_file

path = {str(tied / "model.safetensors")!r}
weights = load(open(path, "rb").read())
del weights["model.layers.1.mlp.up_proj.weight"]
weights["extra.weight"] = weights["model.norm.weight"] = torch.ones(3)
save_file({{name: tensor.clone() for name, tensor in weights.items()}}, path, metadata={{"format": "pt"}})
"""
    subprocess.run([sys.executable, "-c", change], check=True, timeout=60)

    ran = run(
        """
        import pytest
        from pytest_llmmem.suites.promises import test_keys as check_keys

        @pytest.mark.llm_load("default", ignore_mismatched_sizes=True)
        def test_it(loaded_model): check_keys(loaded_model)
        """,
        f"--llm-model={tied}",
    )

    assert ran["test_it[made-default]"].outcome == "failed"
    assert (
        "not in the checkpoint (initialized anew, or a tie that was lost): model.layers.1.mlp.up_proj.weight"
        in ran.text
    )
    assert "of another shape than in the checkpoint: model.norm.weight" in ran.text
    assert "in the checkpoint, and not in the model: extra.weight" in ran.text
