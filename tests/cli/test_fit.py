"""``llmmem fit``."""

from pathlib import Path

from tests.cli.conftest import Llmmem
from tests.conftest import needs
from tests.fit.test_measuring import in_a_group

pytestmark = needs("torch", "transformers")


def test_a_sparse_checkpoint_is_measured_and_not_verified(llmmem: Llmmem) -> None:
    done = llmmem("fit", "synthetic:bert-base", "--json")

    assert done.code == 0
    (load,) = done.document["loads"]
    assert load["dies_below_bytes"] < load["slow_below_bytes"] < load["limit_bytes"]
    assert load["slow_below_bytes"] - load["dies_below_bytes"] > 400_000_000
    assert "its files are sparse" in load["unverified"]
    assert (load["verified"], load["runs"]) == (False, [])


@in_a_group
def test_a_real_checkpoint_is_verified_by_two_runs_in_a_group(llmmem: Llmmem) -> None:
    assert llmmem("synth", "tiny-llama", "real", "--fill", "random").code == 0

    done = llmmem("fit", "real")

    assert "in a memory control group of " in done.out
    assert "resources: {requests: {memory: " in done.out


def test_what_cannot_be_fitted_is_one_sentence(llmmem: Llmmem) -> None:
    assert llmmem("synth", "tiny-neox", "broken", "--shard", "100kB").code == 0
    gone = min(Path("broken").glob("*.safetensors"))
    gone.unlink()

    for arguments, code, complaint in (
        (
            ("synthetic:tiny-llama", "--load", "int9"),
            2,
            "llmmem: --load: 'int9' is not a strategy: write one of default",
        ),
        (("nowhere",), 2, "llmmem: MODEL nowhere: there is no folder"),
        (("broken",), 1, f"llmmem: MODEL broken: {gone.name} is missing or cut off"),
    ):
        done = llmmem("fit", *arguments)

        assert done.code == code
        assert done.err.startswith(complaint)
