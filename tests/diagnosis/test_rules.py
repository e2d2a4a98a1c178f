"""Known failures are recognized by what is known of them, and nothing is concluded from what is not."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.core.endings import Ending, EndingKind, Evidence, Exit, judge_ending
from pytest_llmmem.core.stacks import Frame
from pytest_llmmem.diagnosis import TABLE, CheckpointFacts, Facts, LoadFacts, diagnose, frames_of
from tests.diagnosis.sample_facts import GB, RAISED, assert_readable, died, failed, id_of

PAGE = (Path(__file__).parents[2] / "docs" / "diagnosis.md").read_text(encoding="utf-8")
SECTION = re.compile(r"^### (?P<id>[\w-]+)\n(?P<body>.*?)(?=^##|\Z)", re.DOTALL | re.MULTILINE)
MESSAGE = re.compile(r"(?P<type>[\w.]+Error)(?:: (?P<text>.*?))?(?: {4}in (?P<inside>\S+))?")


def quoted_messages() -> list[object]:
    """Each message in the page, and the section that it stands in."""
    return [
        pytest.param(section["id"], line, id=f"{section['id']}-{number}")
        for section in SECTION.finditer(PAGE)
        for block in re.findall(r"```text\n(.*?)```", section["body"], re.DOTALL)
        for number, line in enumerate(block.splitlines())
    ]


# -- the page


def test_every_row_has_a_section_of_its_own_in_the_same_order() -> None:
    assert [section["id"] for section in SECTION.finditer(PAGE)] == [row.id for row in TABLE]


@pytest.mark.parametrize(("expected", "line"), quoted_messages())
def test_a_message_in_the_page_is_recognized_as_its_section_says(expected: str, line: str) -> None:
    message = MESSAGE.fullmatch(line)
    assert message is not None, f"{line!r} is no message"

    found = diagnose(failed(message["type"], message["text"] or "", inside=message["inside"]))

    assert found is not None
    assert found.id == expected
    assert_readable(found)


def test_every_option_that_is_advised_is_there() -> None:
    from pytest_llmmem.plugin.options import OPTIONS

    advice = PAGE + str(TABLE)

    assert set(re.findall(r"--llm-[a-z-]*[a-z]", advice)) <= {option.flag for option in OPTIONS}


def test_every_fact_that_a_row_may_ask_for_is_set_by_the_plugin() -> None:
    from pytest_llmmem.plugin.run import diagnosis as explaining

    calls = ast.walk(ast.parse(inspect.getsource(explaining)))
    set_there = {node.arg for node in calls if isinstance(node, ast.keyword)}

    for facts in (Facts, LoadFacts, CheckpointFacts):
        assert {field.name for field in dataclasses.fields(facts)} <= set_there


# -- exceptions


def test_the_place_is_told_where_memory_ran_out_and_what_was_free() -> None:
    facts = Facts(
        ending=RAISED,
        error_type="RuntimeError",
        error_text="DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000000 bytes.",
        place="shard 2 of 6, `lm_head.weight`",
        host_available_bytes=20 * GB,
        container_available_bytes=6 * GB,
    )

    found = diagnose(facts)

    assert found is not None
    assert (
        found.happened
        == "8.00 GB of host memory were asked for at once, and refused at shard 2 of 6, `lm_head.weight`."
    )
    assert found.why.endswith("6.00 GB were free before the test.")


@pytest.mark.parametrize(
    ("error_type", "text", "inside"),
    [
        ("AttributeError", "'str' object has no attribute 'values'", "load_checkpoint_in_model"),
        ("ValueError", "Default process group has not been initialized", "load_checkpoint_in_model"),
        ("OSError", "[Errno 22] Invalid argument", "torch/serialization.py"),
        ("EOFError", "", "torch/serialization.py"),
        ("UnpicklingError", "invalid load key, '<'.", "torch/serialization.py"),
        (
            "FileNotFoundError",
            "[Errno 2] No such file or directory: '/data/mine/index.json'",
            "accelerate/utils/offload.py",
        ),
        ("TypeError", "got an unexpected keyword argument 'load_in_8bit'", "from_pretrained"),
    ],
)
def test_a_message_that_says_too_little_is_recognized_by_where_it_comes_from(
    error_type: str, text: str, inside: str
) -> None:
    assert id_of(failed(error_type, text, inside=inside)) is not None
    assert id_of(failed(error_type, text, inside="my_code.py")) is None
    assert id_of(failed(error_type, text)) is None


@pytest.mark.parametrize(
    ("error_type", "text"),
    [
        ("ValueError", "invalid literal for int() with base 10: 'a'"),
        ("KeyError", "'accelerate'"),
        ("AssertionError", "assert 1 == 2"),
        ("TypeError", "You are trying to offload the whole model to the disk."),
        ("RuntimeError", "CUDA error: device-side assert triggered"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: 'model.safetensors.index.json'"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: '/data/vocab.json'"),
        ("FileNotFoundError", "[Errno 2] No such file or directory: '/data/mine/index.json'"),
        ("TypeError", "my_own_loader() got an unexpected keyword argument 'load_in_8bit'"),
        ("TypeError", "my_own_loader() got an unexpected keyword argument 'llm_int8_enable_fp32_cpu_offload'"),
        ("UnpicklingError", "invalid load key, 'v'."),
        ("UnpicklingError", "invalid load key, '<'."),
        ("RuntimeError", "PytorchStreamReader failed locating file data.pkl: file not found"),
        ("RuntimeError", "unable to mmap 400 bytes from file </torch_4711_12_0>: Cannot allocate memory (12)"),
    ],
)
def test_other_exceptions_are_left_alone(error_type: str, text: str) -> None:
    assert diagnose(failed(error_type, text)) is None


@given(st.sampled_from(("ValueError", "RuntimeError", "OSError", "SafetensorError", "OutOfMemoryError")), st.text())
def test_no_message_is_too_much(error_type: str, text: str) -> None:
    diagnose(failed(error_type, text))


def test_a_truncated_bin_file_is_told_from_other_unreadable_ones() -> None:
    text = "Unable to load weights from pytorch checkpoint file for '/m/pytorch_model.bin' at '/m/pytorch_model.bin'."
    facts = Facts(
        ending=RAISED,
        error_type="OSError",
        error_text=text,
        checkpoint=CheckpointFacts(weights_bytes=GB, truncated=("pytorch_model.bin",)),
    )

    found = diagnose(facts)

    assert found is not None
    assert (found.id, found.happened) == ("bin-truncated", "A .bin file ends too early: pytorch_model.bin.")


def test_the_stack_of_an_exception_is_innermost_first() -> None:
    def inner() -> None:
        raise ValueError

    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- its stack is looked at
        inner()

    assert [frame.function for frame in frames_of(caught.value)] == [
        "inner",
        "test_the_stack_of_an_exception_is_innermost_first",
    ]


# -- deaths


def test_an_oom_kill_says_where_and_by_what_evidence() -> None:
    evidence = Evidence(oom_kills_on_host=1, oom_kills_readable=True)

    found = diagnose(died(-9, evidence=evidence, place="shard 5 of 8"))

    assert found is not None
    assert found.id == "out-of-memory"
    assert found.happened.startswith("Killed because memory ran out at shard 5 of 8: the kernel's OOM killer")
    assert_readable(found)


@pytest.mark.parametrize(
    ("host", "container", "expected"),
    [
        (20 * GB, None, "weights-exceed-memory"),
        (200 * GB, 20 * GB, "weights-exceed-memory"),
        (30 * GB, None, "out-of-memory"),
        (None, None, "out-of-memory"),
    ],
)
def test_weights_that_cannot_fit_are_named_where_the_numbers_are_known(
    host: int | None, container: int | None, expected: str
) -> None:
    facts = died(
        -9,
        evidence=Evidence(oom_kills_on_host=1),
        checkpoint=CheckpointFacts(weights_bytes=26 * GB),
        host_available_bytes=host,
        container_available_bytes=container,
    )

    assert id_of(facts) == expected


def test_a_sigkill_that_nobody_can_be_shown_to_have_sent() -> None:
    assert id_of(died(-9)) == "killed"
    assert id_of(died(-9, evidence=Evidence(oom_kills_readable=True))) is None


OFFLOADING = Frame("/x/site-packages/accelerate/utils/offload.py", "45", "offload_weight")
READING = Frame("/x/site-packages/torch/storage.py", "450", "__getitem__")
SHARING = Frame("/x/site-packages/torch/storage.py", "450", "share_memory_")
SAVING = (
    Frame("/x/site-packages/torch/serialization.py", "800", "save"),
    Frame("/x/site-packages/safetensors/torch.py", "350", "save_file"),
    Frame("/x/site-packages/transformers/modeling_utils.py", "3000", "save_pretrained"),
)
FORWARD = Frame("/x/site-packages/torch/nn/modules/linear.py", "130", "forward")


@pytest.mark.parametrize(
    ("stack", "truncated", "expected"),
    [
        ((FORWARD,), ("model-00002-of-00006.safetensors",), "map-truncated"),
        ((OFFLOADING, FORWARD), (), "offload-disk-full"),
        ((READING,), (), "map-unreadable"),
        ((SHARING,), (), "shared-memory-full"),
        (SAVING, (), None),
        ((FORWARD,), (), None),
    ],
)
def test_a_bus_error_is_told_by_the_files_and_the_stack(
    stack: tuple[Frame, ...], truncated: tuple[str, ...], expected: str | None
) -> None:
    checkpoint = CheckpointFacts(weights_bytes=GB, truncated=truncated)

    found = diagnose(died(-7, *stack, checkpoint=checkpoint))

    assert (found.id if found else None) == expected
    if found:
        assert ("SIGBUS" in found.happened) is (expected != "shared-memory-full")
        assert_readable(found)


@pytest.mark.parametrize(("free", "expected"), [(0, "shared-memory-full"), (60 * 2**20, None), (None, None)])
def test_a_bus_error_while_the_shared_memory_is_full_is_its(free: int | None, expected: str | None) -> None:
    found = diagnose(died(-7, FORWARD, shm_total_bytes=64 * 2**20, shm_free_bytes=free))

    assert (found.id if found else None) == expected
    if found:
        assert found.happened.endswith("It has 64.0 MiB.")
        assert_readable(found)
    assert id_of(died(-11, FORWARD, shm_total_bytes=64 * 2**20, shm_free_bytes=0)) is None


@pytest.mark.parametrize("returncode", [0xC0000005, -1073741819])
def test_an_access_violation_while_weights_are_read(returncode: int) -> None:
    windows = Frame("C:\\py\\Lib\\site-packages\\torch\\storage.py", "450", "__getitem__")

    found = diagnose(died(returncode, windows, place="shard 4 of 4"))

    assert found is not None
    assert found.id == "access-violation"
    assert found.happened.startswith("The worker died of ACCESS_VIOLATION (0xC0000005) at shard 4 of 4")
    assert_readable(found)
    assert id_of(died(returncode, windows)) == "access-violation"
    assert id_of(died(returncode)) is None


def test_a_segmentation_fault_is_a_loads_only_where_weights_were_read() -> None:
    assert id_of(died(-11, READING)) == "segfault-while-loading"
    assert id_of(died(-11, place="shard 1 of 3")) == "segfault-while-loading"
    assert id_of(died(-11, FORWARD)) is None
    assert id_of(died(-11, *SAVING)) is None


@pytest.mark.parametrize("kind", get_args(EndingKind))
def test_nothing_is_concluded_from_nothing(kind: EndingKind) -> None:
    facts = Facts(ending=Ending(kind=kind), checkpoint=CheckpointFacts(weights_bytes=GB), load=LoadFacts())

    assert id_of(facts) == ("out-of-memory" if kind == "out_of_memory" else None)


def test_a_death_that_is_not_known_has_no_diagnosis() -> None:
    for exit_ in (Exit(code=0), Exit(code=1), Exit(signal="SIGABRT", signal_number=6)):
        ending = judge_ending(exit_, finished=False, phase="call", stopped=None, evidence=Evidence())
        assert diagnose(Facts(ending=ending, place="shard 1 of 2")) is None
