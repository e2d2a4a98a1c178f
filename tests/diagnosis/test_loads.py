"""Loads that did not do what they were meant to are found by their numbers, and no number is made up."""

import pytest

from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.stacks import Frame
from pytest_llmmem.diagnosis import CheckpointFacts, Facts, LoadFacts, diagnose
from tests.diagnosis.sample_facts import COMPLETED, GB, MB, RAISED, assert_readable, id_of

FLOAT16 = CheckpointFacts(weights_bytes=2 * GB, dtype="float16")


def loaded(
    checkpoint: CheckpointFacts = FLOAT16,
    ending: Ending = RAISED,
    error_type: str | None = "AssertionError",
    container_available_bytes: int | None = None,
    **facts: object,
) -> Facts:
    return Facts(
        ending=ending,
        error_type=error_type,
        checkpoint=checkpoint,
        load=LoadFacts(**facts),  # type: ignore[arg-type]
        container_available_bytes=container_available_bytes,
    )


def test_a_wider_dtype_is_found() -> None:
    found = diagnose(loaded(dtype="float32"))

    assert found is not None
    assert found.id == "dtype-wider"
    assert found.happened == "The model is float32, and its checkpoint is float16: 2 times the checkpoint's 2.00 GB."
    assert_readable(found)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "float8_e4m3fn", None])
def test_a_dtype_that_is_no_wider_or_unknown_is_no_finding(dtype: str | None) -> None:
    assert diagnose(loaded(dtype=dtype)) is None


def test_a_quantized_checkpoint_is_no_wider_as_a_model() -> None:
    stored = CheckpointFacts(weights_bytes=2 * GB, dtype="int8")

    assert diagnose(loaded(stored, dtype="float16", bits_per_parameter=8.9)) is None
    assert id_of(loaded(stored, dtype="float16", bits_per_parameter=16.0)) == "dtype-wider"


def test_a_dtype_that_was_asked_for_is_a_finding_only_where_it_did_not_fit() -> None:
    asked = {"dtype": "float32", "asked_dtype": "float32"}

    assert diagnose(loaded(ending=COMPLETED, error_type=None, **asked)) is None
    assert id_of(loaded(ending=COMPLETED, error_type=None, dtype="float32")) == "dtype-wider"
    assert id_of(loaded(ending=Ending(kind="over_budget"), error_type=None, **asked)) == "dtype-wider"
    assert id_of(loaded(ending=Ending(kind="out_of_memory"), error_type=None, **asked)) == "dtype-wider"


@pytest.mark.parametrize(
    ("asked", "bits", "expected"),
    [
        (4, 15.55, "quantization-without-effect"),  # experts in transformers 5: 702 of 722 MB
        (8, 15.7, "quantization-without-effect"),
        (4, 4.8, None),
        (4, 10.0, None),  # half of what it should save
        (4, 7.3, None),  # a small model, half of it embeddings
        (8, 10.0, None),
        (None, 16.0, None),
        (4, None, None),
    ],
)
def test_a_quantization_that_changed_nothing_is_found(
    asked: int | None, bits: float | None, expected: str | None
) -> None:
    found = diagnose(loaded(asked_bits=asked, bits_per_parameter=bits, quantized_fraction=0.03))

    assert (found.id if found else None) == expected
    if found:
        assert found.why.startswith("3% of the parameters are quantized, the others take 16 bits each")
        assert_readable(found)


def test_what_is_left_unquantized_is_told_with_the_bits_that_it_takes() -> None:
    found = diagnose(
        loaded(asked_bits=8, bits_per_parameter=15.0, quantized_fraction=0.653)
    )  # a T5, whose wo is float32

    assert found is not None
    assert found.why.startswith("65% of the parameters are quantized, the others take 28 bits each")


@pytest.mark.parametrize(
    ("weights", "nbytes", "peak", "kept", "expected"),
    [
        (2 * GB, 2 * GB, 4 * GB, 0, "second-copy"),
        (2 * GB, 2 * GB, 4 * GB, GB, "second-copy"),  # the half of a state dict that was freed and not given back
        (2 * GB, 4 * GB, 6 * GB, 0, "second-copy"),  # a float32 model and a float16 state dict
        (2 * GB, 2 * GB, int(2.5 * GB), 0, None),  # one shard beside the model
        (2 * GB, 4 * GB, int(4.01 * GB), 0, None),  # cast from a map
        (GB // 1000, GB // 1000, GB // 10, 0, None),  # what the libraries take hides a small model
        (2 * GB, 2 * GB, None, 0, None),
        (220 * MB, 119 * MB, 405 * MB, 296 * MB, None),  # an int8 load under glibc's default mmap threshold
        (2 * GB, 2 * GB, 4 * GB, None, None),
    ],
)
def test_a_second_copy_is_found(
    weights: int, nbytes: int, peak: int | None, kept: int | None, expected: str | None
) -> None:
    checkpoint = CheckpointFacts(weights_bytes=weights, dtype="float16")

    found = diagnose(loaded(checkpoint, nbytes=nbytes, peak_bytes=peak, kept_bytes=kept))

    assert (found.id if found else None) == expected
    if found:
        assert_readable(found)


@pytest.mark.parametrize(
    ("ending", "planned", "container", "expected"),
    [
        (Ending(kind="out_of_memory"), 23 * GB, int(7.5 * GB), "plan-exceeds-container"),
        (COMPLETED, 23 * GB, GB, "plan-exceeds-container"),  # 2 GB of weights would not fit
        (COMPLETED, 23 * GB, 4 * GB, None),  # they fit all the same
        (Ending(kind="out_of_memory", note="killed"), 6 * GB, int(7.5 * GB), "out-of-memory"),
        (COMPLETED, 23 * GB, None, None),
    ],
)
def test_a_plan_with_the_hosts_memory_is_found_in_a_smaller_container(
    ending: Ending, planned: int, container: int | None, expected: str | None
) -> None:
    facts = loaded(ending=ending, error_type=None, planned_host_bytes=planned, container_available_bytes=container)

    found = diagnose(facts)

    assert (found.id if found else None) == expected
    if found and ending.died and expected == "plan-exceeds-container":
        assert "max_memory={'cpu': '7500MB'}" in found.next[0]
        assert_readable(found)


def test_files_of_a_second_format_are_found_unless_the_worker_died() -> None:
    twice = CheckpointFacts(weights_bytes=GB, duplicates=("pytorch_model.bin",))

    found = diagnose(loaded(twice, ending=COMPLETED, error_type=None))

    assert found is not None
    assert (found.id, found.happened) == (
        "fetched-twice",
        "The weights are there in two formats. No load reads pytorch_model.bin.",
    )
    assert_readable(found)
    assert id_of(loaded(twice, ending=Ending(kind="over_budget"), error_type=None)) is None


def test_an_exception_with_a_cause_of_its_own_is_not_explained_by_findings() -> None:
    assert id_of(loaded(dtype="float32", error_type="pytest_llmmem.BudgetExceeded")) == "dtype-wider"
    assert id_of(loaded(dtype="float32", error_type="KeyError")) is None


@pytest.mark.parametrize(
    ("file", "function", "reader"),
    [
        ("site-packages/torch/serialization.py", "load", "torch.load"),
        ("site-packages/torch/nn/modules/module.py", "load_state_dict", "load_state_dict"),
    ],
)
def test_a_budget_crossed_while_a_state_dict_is_copied_is_explained(file: str, function: str, reader: str) -> None:
    stack = (Frame(file, "10", function), Frame("test_x.py", "3", "test_it"))

    found = diagnose(Facts(ending=Ending(kind="over_budget"), stack=stack))

    assert found is not None
    assert (found.id, found.happened.split(":")[0]) == ("state-dict-copied", f"The budget was crossed in {reader}")
    assert_readable(found)
    assert diagnose(Facts(ending=RAISED, stack=stack)) is None
