"""The ready-made checks of a load over ranks: they pass, and each fails on the load that it is there for."""

from collections.abc import Callable

import pytest

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

    outcomes = {test.nodeid.rpartition("::test_")[2].partition("[")[0]: test.outcome for test in ran.record.tests}
    assert outcomes == {check: "failed" if check in failed else "passed" for check in CHECKS}
