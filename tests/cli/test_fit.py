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

    assert "verified in a memory control group: in " in done.out
    assert "resources: {requests: {memory: " in done.out


@in_a_group
def test_a_training_step_has_the_same_words_and_two_verifying_runs(llmmem: Llmmem) -> None:
    assert llmmem("synth", "tiny-llama", "real", "--fill", "random").code == 0

    done = llmmem("fit", "real", "--train", "--batch", 2, "--checkpointing")

    assert done.code == 0
    assert "training step  2 x 256 tokens, adamw, checkpointing" in done.out
    assert "dies below" in done.out
    assert done.out.count("it lived, a training step took ") == 2


def test_the_parts_of_a_size_add_up(llmmem: Llmmem) -> None:
    loads = llmmem("fit", "synthetic:tiny-llama", "--json", "--no-verify").document["loads"]

    for load in loads:
        measured = load["measured"]
        assert measured["base_unreclaimable_bytes"] + measured["peak_bytes"] < load["dies_below_bytes"]
        assert measured["base_resident_bytes"] + measured["peak_resident_bytes"] < load["slow_below_bytes"]


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
        (("synthetic:tiny-llama", "--batch", "2"), 2, "llmmem: --batch needs --train"),
        (("synthetic:tiny-llama", "--train", "--batch", "0"), 2, "llmmem: --train: batch_size=0 is not a number"),
        (
            ("synthetic:tiny-llama", "--train", "--load", "offload"),
            2,
            "llmmem: --load: 'offload' leaves no model that can be trained: with --train, write one of default",
        ),
        (
            ("synthetic:tiny-llama", "--load", "llama_cpp"),
            2,
            "llmmem: --load: 'llama_cpp' gives no model of transformers that fit could run: see 'llmmem check",
        ),
        (("nowhere",), 2, "llmmem: MODEL nowhere: there is no folder"),
        (("broken",), 1, f"llmmem: MODEL broken: {gone.name} is missing or cut off"),
    ):
        done = llmmem("fit", *arguments)

        assert done.code == code
        assert done.err.startswith(complaint)
