"""A place is named as a reader of a failure would look for it."""

from pytest_llmmem.core.load_position import describe_position

SHARDS = ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors")


def test_a_shard_is_named_by_its_number() -> None:
    assert describe_position(SHARDS[1], "lm_head.weight", SHARDS) == "shard 2 of 3, `lm_head.weight`"


def test_a_shard_that_is_read_as_a_whole_has_no_tensor() -> None:
    assert describe_position(SHARDS[2], "", SHARDS) == "shard 3 of 3"


def test_the_only_file_goes_by_its_name() -> None:
    name = "model.safetensors"

    assert describe_position(name, "lm_head.weight", (name,)) == "model.safetensors, `lm_head.weight`"


def test_a_file_that_is_not_of_the_checkpoint_goes_by_its_name() -> None:
    assert describe_position("adapter.safetensors", "lora_A", SHARDS) == "adapter.safetensors, `lora_A`"


def test_names_of_others_are_told_so_that_no_terminal_obeys_them() -> None:
    assert describe_position("\x1b[2J.bin", "\n::error::", ()) == r"\x1b[2J.bin, `\n::error::`"
