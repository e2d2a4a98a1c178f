"""The ready-made checks of a load over ranks: they pass, and each fails on the load that it is there for."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from pytest_llmmem.models.sources.presets import PRESETS
from tests.conftest import Run, needs

pytestmark = needs("forked workers", "torch", "transformers", "accelerate")

WASTEFUL = """
    import os
    from pytest_llmmem.models.loading.request import LoadRequest

    original = LoadRequest.from_pretrained

    def from_pretrained(self, **arguments):
        model = original(self, **arguments)
        if os.environ["RANK"] == "1":
            {waste}
        return model

    LoadRequest.from_pretrained = from_pretrained
"""
FOR_A_MOMENT = "b'x' * 300_000_000"
KEPT = "import torch; model.waste = torch.ones(75_000_000)"
CHECKS = {"rank_load", "rank_share", "rank0_only", "group"}


@pytest.mark.parametrize(
    ("waste", "failed"),
    [("pass", set()), (FOR_A_MOMENT, {"rank_load", "rank0_only", "group"}), (KEPT, {"rank_share"})],
    ids=["as it is", "for a moment", "kept"],
)
def test_a_check_of_ranks_fails_on_what_a_rank_should_not_hold(
    run: Callable[..., Run], pytester: pytest.Pytester, waste: str, failed: set[str]
) -> None:
    pytester.makeconftest(WASTEFUL.format(waste=waste))
    load = ("--llm-model=synthetic:tiny-llama", "--llm-load=fsdp_rank0", "--llm-ranks=2")

    ran = run("from pytest_llmmem.checks import *", *load, "-k", " or ".join(CHECKS), timeout_s=200)

    assert outcomes(ran) == {check: "failed" if check in failed else "passed" for check in CHECKS}


LLAMA = PRESETS["tiny-llama"].config | {"num_hidden_layers": 2}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True}
MIXTURE = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 3}
FUSED = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "pad_token_id": 0, "eos_token_id": 2}
TYPES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "neox": PRESETS["tiny-neox"].config,  # its plan leaves the embedding whole
    "tied": LLAMA | QWEN3,
    "mixture": LLAMA | MIXTURE,  # two ranks do not share three experts evenly
    "fused": LLAMA | FUSED,
}


@pytest.mark.parametrize("load", ["tensor_parallel", "fsdp"])
def test_a_rank_of_each_type_of_model_holds_its_share(
    run: Callable[..., Run], pytester: pytest.Pytester, load: str
) -> None:
    for name, config in TYPES.items():
        pytester.path.joinpath(f"{name}.json").write_text(json.dumps(config))

    models = [f"--llm-model=synthetic:{name}.json" for name in TYPES]
    ran = run(
        "from pytest_llmmem.checks import *", *models, f"--llm-load={load}", "--llm-ranks=2", "-k", "rank_share",
        timeout_s=200,
    )  # fmt: skip

    ran.result.assert_outcomes(passed=len(TYPES))


FORGOTTEN = "import torch; model.lm_head.weight = torch.nn.Parameter(torch.zeros(model.lm_head.weight.shape))"


def test_a_weight_that_the_plan_splits_and_a_rank_holds_whole_is_named(
    run: Callable[..., Run], pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(WASTEFUL.format(waste=FORGOTTEN))
    load = ("--llm-model=synthetic:tiny-neox", "--llm-load=tensor_parallel", "--llm-ranks=2")

    ran = run("from pytest_llmmem.checks import *", *load, "-k", "rank_share", timeout_s=100)

    ran.result.assert_outcomes(failed=1)
    assert "whole in each rank, although the load was to split them: lm_head.weight" in ran.text


def test_ranks_that_do_not_divide_the_attention_heads_are_refused_in_one_sentence(run: Callable[..., Run]) -> None:
    load = ("--llm-model=synthetic:tiny-llama", "--llm-load=tensor_parallel", "--llm-ranks=4")

    ran = run("from pytest_llmmem.checks import *", *load, "-k", "forward", timeout_s=100)

    ran.result.assert_outcomes(errors=1)
    assert (
        "--llm-model=synthetic:tiny-llama: 'tensor_parallel' gives whole attention heads to each rank, and 4 ranks cannot share "
        "2 of them: use 2 ranks, or the load 'fsdp'\n"
    ) in ran.text
    assert "Traceback" not in ran.text


def outcomes(ran: Run) -> dict[str, str]:
    """The outcome of each check, by its name."""
    return {test.nodeid.rpartition("::test_")[2].partition("[")[0]: test.outcome for test in ran.record.tests}
