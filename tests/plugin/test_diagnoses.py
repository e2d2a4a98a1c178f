"""What is said under a failure of a real worker, and what is not."""

import os
from collections.abc import Callable, Generator

import pytest

from tests.conftest import Run, needs

pytestmark = needs("control groups")

SMALL_SHM = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, PRIVATE = 0x20000, (1 << 18) | (1 << 14)
entered = libc.unshare(NEW_MOUNTS) == 0 and libc.mount(None, b"/", None, PRIVATE, None) == 0
assert entered and libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=8m") == 0, "no namespace"
"""
"""Gives pytest, from within its conftest, a ``/dev/shm`` of 8 MiB in a mount namespace of its own."""


@needs("torch")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount")
def test_a_full_shared_memory_is_no_full_disk(run: Callable[..., Run], pytester: pytest.Pytester) -> None:
    pytester.makeconftest(SMALL_SHM)
    ran = run(
        """
        import errno, multiprocessing, os, pytest, torch
        from multiprocessing import shared_memory
        pytestmark = pytest.mark.in_worker

        def test_tensor(): torch.ones(5_000_000).share_memory_()
        def test_file(): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/dev/shm/large")
        def test_lock():
            with pytest.raises(OSError), open("/dev/shm/fill", "wb") as file: file.write(bytes(20_000_000))
            multiprocessing.Lock()
        def test_block():
            block = shared_memory.SharedMemory(create=True, size=20_000_000)
            block.buf[:] = bytes(20_000_000)
        def test_disk(): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/var/x")
        """,
        "--tb=line",
    )

    said = {name: (found := ran[f"test_{name}"].diagnosis) and found.id for name in ("tensor", "file", "lock", "block")}
    assert said == dict.fromkeys(said, "shared-memory-full")
    assert ran["test_block"].ending.signal == "SIGBUS"
    assert ran["test_disk"].diagnosis.id == "disk-full"
    ran.result.stdout.fnmatch_lines(["/dev/shm is full: *. It has 8.00 MiB.", "*docker run --shm-size*"])


@needs("torch", "transformers", "accelerate")
def test_an_argument_that_the_strategy_gives_an_effect_is_not_called_idle(run: Callable[..., Run]) -> None:
    ran = run(
        """
        import pytest
        @pytest.mark.llm_load("auto", max_memory={"cpu": "200kB"})
        def test_auto(loaded_model): assert loaded_model.nbytes_on("disk") > 0
        @pytest.mark.llm_load("offload", max_memory={"cpu": "200kB"})
        def test_offload(loaded_model): assert loaded_model.nbytes_on("disk") > 0
        @pytest.mark.llm_load("auto", offload_folder="offload")
        def test_folder(loaded_model): pass
        @pytest.mark.llm_load("default", max_memory={"cpu": "200kB"}, offload_folder="offload")
        def test_idle(loaded_model): assert loaded_model.nbytes_on("disk") == 0
        """,
        "--llm-model=synthetic:tiny-llama",
    )

    ran.result.assert_outcomes(passed=4)
    notes = {test.nodeid.partition("::")[2].partition("[")[0]: test.notes for test in ran.record.tests}
    assert notes.pop("test_idle") == (
        "max_memory has no effect unless the device_map is worked out: pass device_map='auto' too",
        "offload_folder has no effect without a device_map: pass device_map='auto' too",
    )
    assert notes == dict.fromkeys(notes, ())


@needs("torch", "transformers", "accelerate")
def test_a_plan_with_the_machines_memory_is_found_in_a_container(
    run: Callable[..., Run], pytester: pytest.Pytester, container: str
) -> None:
    pytester.makeconftest(
        f"import os\nwith open({container!r} + '/cgroup.procs', 'w') as procs: procs.write(str(os.getpid()))"
    )
    pytester.makefile(".json", wide=WIDE)
    ran = run(
        """
        import pytest
        @pytest.mark.llm_load("default", device_map="auto", dtype="float32")
        def test_planned_by_psutil(loaded_model): pass
        @pytest.mark.llm_load("auto", max_memory={"cpu": "600GB"}, dtype="float32")
        def test_planned_by_hand(loaded_model): pass
        @pytest.mark.llm_load("auto", dtype="float32")
        def test_planned_by_us(loaded_model): pass
        """,
        "--llm-model=synthetic:wide.json",
        timeout_s=120,
    )

    said = [test.diagnosis and test.diagnosis.id for test in ran.record.tests]
    assert said == ["plan-exceeds-container", "plan-exceeds-container", None]
    assert "600.00 GB of host memory, and the container had " in ran.record.tests[1].diagnosis.lines[0]


WIDE = """{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 8192,
"num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 1024, "torch_dtype": "float16"}"""
"""1.6 GB of float16."""


@pytest.fixture
def container() -> Generator[str]:
    """A memory control group of 1.2 GB."""
    from pytest_llmmem.probes.cgroups import own_group

    group = own_group()
    if group is None or not os.access(group.path, os.W_OK):
        pytest.skip("needs a writable memory control group")
    path = group.path / f"llmmem-container-{os.getpid()}"
    path.mkdir()
    (path / ("memory.max" if group.version == 2 else "memory.limit_in_bytes")).write_text(str(1_200_000_000))
    yield str(path)
    path.rmdir()
