"""GPU memory that was refused: the numbers of every torch's message, and what follows from them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.diagnosis import diagnose
from pytest_llmmem.diagnosis.cuda import CudaOutOfMemory
from tests.diagnosis.sample_facts import failed, id_of

NEW = (
    "CUDA out of memory. Tried to allocate {asked}. GPU 1 has a total capacity of 23.68 GiB of which {free} is free. "
    "Including non-PyTorch memory, this process has {process} memory in use. Of the allocated memory 11.44 GiB is "
    "allocated by PyTorch, and {unallocated} is reserved by PyTorch but unallocated. If reserved but unallocated memory "
    "is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)
OLD = (
    "CUDA out of memory. Tried to allocate 2.50 GiB (GPU 0; 15.90 GiB total capacity; 10.00 GiB already allocated; "
    "17.75 MiB free; 14.00 GiB reserved in total by PyTorch) If reserved memory is >> allocated memory try setting "
    "max_split_size_mb to avoid fragmentation."
)


ASYNC = """Allocation on device 0 would exceed allowed memory. (out of memory)
Currently allocated     : 22.00 GiB
Requested               : 1.00 GiB
Device limit            : 23.68 GiB
Free (according to CUDA): 15.00 MiB
PyTorch limit (set by user-supplied memory fraction)
                        : 17179869184.00 GiB"""


@pytest.mark.parametrize(
    ("was", "wording"),
    [
        ("capacity", "capacity"),
        ("capacity", "capacty"),
        ("CUDA out of memory", "Out of memory"),
        ("by PyTorch, and", "by PyTorch, with 2.00 GiB allocated in private pools (e.g., CUDA Graphs), and"),
    ],
)
def test_the_numbers_of_a_new_message_are_read(was: str, wording: str) -> None:
    found = CudaOutOfMemory.parse(
        NEW.replace(was, wording).format(
            asked="20.00 MiB", free="512 bytes", process="12.00 GiB", unallocated="1.50 KiB"
        )
    )

    assert found == CudaOutOfMemory(
        device=1,
        asked_bytes=20 * 2**20,
        total_bytes=int(23.68 * 2**30),
        free_bytes=512,
        process_bytes=12 * 2**30,
        allocated_bytes=int(11.44 * 2**30),
        unallocated_bytes=1536,
    )


def test_the_numbers_of_an_old_message_are_read() -> None:
    found = CudaOutOfMemory.parse(OLD)

    assert found is not None
    assert (found.device, found.asked_bytes, found.unallocated_bytes) == (0, 5 * 2**29, 4 * 2**30)
    assert (found.free_bytes, found.process_bytes, found.others_bytes) == (int(17.75 * 2**20), None, None)
    assert found.expandable_segments_would_help


def test_what_a_message_does_not_say_is_unknown() -> None:
    found = CudaOutOfMemory.parse("CUDA out of memory. Tried to allocate 2.00 GiB.")

    assert found is not None
    assert (found.device, found.total_bytes, found.unallocated_bytes, found.others_bytes) == (None, None, None, None)
    assert not found.expandable_segments_would_help
    assert id_of(failed("torch.OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB.")) == "cuda-full"


def test_a_limit_of_the_allocators_own_is_named_where_it_was_in_the_way() -> None:
    capped = NEW.replace("Of the allocated", "{allowed} allowed; Of the allocated")
    sizes = {"asked": "3.00 GiB", "free": "11.00 GiB", "process": "12.00 GiB", "unallocated": "1.00 GiB"}

    found = CudaOutOfMemory.parse(capped.format(allowed="14.00 GiB", **sizes))
    roomy = CudaOutOfMemory.parse(capped.format(allowed="23.68 GiB", **sizes))

    assert found is not None
    assert roomy is not None
    assert (found.allowed_bytes, found.is_capped, roomy.is_capped) == (14 * 2**30, True, False)
    assert found.sentence() == (
        "GPU 1 refused 3.00 GiB: 11.0 GiB of 23.7 GiB were free (14.0 GiB allowed), 1.00 GiB were reserved and unused; "
        "expandable_segments:True would not have helped"
    )
    assert id_of(failed("torch.OutOfMemoryError", capped.format(allowed="14.00 GiB", **sizes))) == "cuda-capped"


@given(st.integers(1, 10_000), st.integers(0, 5_000), st.integers(0, 10_000))
def test_expandable_segments_are_advised_only_where_what_was_asked_for_was_there_in_pieces(
    asked: int, free: int, unallocated: int
) -> None:
    text = NEW.format(
        asked=f"{asked}.00 MiB", free=f"{free}.00 MiB", process="23.60 GiB", unallocated=f"{unallocated}.00 MiB"
    )

    found = diagnose(failed("torch.OutOfMemoryError", text))

    assert found is not None
    advised = any("expandable_segments:True" in step for step in found.next)
    assert advised is (found.id == "cuda-fragmented") is (unallocated > 0 and asked <= unallocated + free)


def test_a_limit_of_the_allocators_own_leaves_less_that_is_free() -> None:
    capped = NEW.replace("Of the allocated", "{allowed} allowed; Of the allocated")
    sizes = {"asked": "2.00 GiB", "free": "9.00 GiB", "process": "12.00 GiB", "unallocated": "1.60 GiB"}

    enough, too_little = (CudaOutOfMemory.parse(capped.format(allowed=a, **sizes)) for a in ("13.50 GiB", "13.20 GiB"))

    assert enough is not None
    assert too_little is not None
    assert (enough.expandable_segments_would_help, too_little.expandable_segments_would_help) == (True, False)


def test_the_numbers_of_cuda_s_own_allocator_are_read() -> None:
    found = CudaOutOfMemory.of_error("torch.OutOfMemoryError", ASYNC)

    assert found is not None
    assert (found.device, found.asked_bytes, found.allocated_bytes) == (0, 2**30, 22 * 2**30)
    assert (found.free_bytes, found.total_bytes) == (15 * 2**20, int(Decimal("23.68") * 2**30))


@pytest.mark.parametrize(("error", "device"), [(ASYNC, "GPU 0"), ("CUDA error: out of memory", None)])
def test_what_was_refused_is_recorded_with_its_device_where_that_is_known(error: str, device: str | None) -> None:
    found = CudaOutOfMemory.of_error("torch.OutOfMemoryError", error)

    assert found is not None
    record = found.record()
    assert (record.device, record.asked_bytes) == (device, found.asked_bytes)
    assert (record.free_bytes, record.total_bytes) == (found.free_bytes, found.total_bytes)


@pytest.mark.parametrize("kind", ["torch.AcceleratorError", "RuntimeError"])
def test_an_error_of_cuda_itself_is_a_finding_without_numbers(kind: str) -> None:
    text = "CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."

    found = CudaOutOfMemory.of_error(kind, text)

    assert found is not None
    assert (found.asked_bytes, found.expandable_segments_would_help, found.is_capped) == (None, False, False)
    assert found.sentence() == "the GPU had no memory left, and CUDA says no more"
    assert id_of(failed(kind, text)) == "cuda-none-left"


@pytest.mark.parametrize(
    "text", ["out of memory", "CUDA error: invalid device ordinal", "the cupboard is out of memory jars"]
)
def test_other_errors_are_none_of_them(text: str) -> None:
    assert CudaOutOfMemory.of_error("RuntimeError", text) is None


@pytest.mark.parametrize(("free", "expected"), [("1.00 GiB", "cuda-shared"), ("3.00 GiB", "cuda-full")])
def test_other_processes_are_named_where_they_hold_what_was_asked_for(free: str, expected: str) -> None:
    text = NEW.format(asked="10.00 GiB", free=free, process="12.00 GiB", unallocated="1.00 MiB")

    found = diagnose(failed("torch.OutOfMemoryError", text))

    assert found is not None
    assert found.id == expected
    assert ("Other processes hold 10.7 GiB" in found.why) is (expected == "cuda-shared")
