"""Ready-made checks that load by themselves: what a load leaves behind, and what it writes.

They come last: the others share one load.
"""

import gc
from collections.abc import Callable, Generator
from typing import Final

import pytest

from pytest_llmmem import probes
from pytest_llmmem.core.sizes import format_beside, format_size
from pytest_llmmem.measuring.blocks import memory_budget
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.loading.loaded import LoadedModel
from pytest_llmmem.models.loading.residency import trim
from pytest_llmmem.plugin.collect.loads import Load
from pytest_llmmem.plugin.worker.load import load, scratch_folder
from pytest_llmmem.suites.checks import SLACK, peak_of, unreclaimable_bytes, within

_DISK_SLACK: Final = 20 * 10**6


@pytest.fixture
def load_anew(
    model_checkpoint: Checkpoint, llm_load: Load, pytestconfig: pytest.Config
) -> "Generator[Callable[[], LoadedModel]]":
    """Load the model as often as it is called."""
    with scratch_folder(pytestconfig) as folder:
        yield lambda: load(pytestconfig, model_checkpoint, llm_load, lambda: memory_budget(None, name="load"), folder)


@pytest.mark.usefixtures("needs_steady_malloc")
def test_release(load_anew: Callable[[], LoadedModel]) -> None:
    """Once the model is gone, so is its memory."""
    before = unreclaimable_bytes()
    loaded = load_anew()
    del loaded
    gc.collect()
    kept = unreclaimable_bytes() - before
    if kept > SLACK:
        trim()
        freed = before + kept - unreclaimable_bytes()
        pytest.fail(
            f"{format_size(kept)} were not given back after the model was gone, {format_size(max(0, freed))} of them only "
            "because the C library keeps what was freed: call malloc_trim(0), or set MALLOC_MMAP_THRESHOLD_=131072 "
            "(here: --llm-malloc=steady)",
            pytrace=False,
        )


@pytest.mark.usefixtures("needs_steady_malloc")
def test_second_load(load_anew: Callable[[], LoadedModel]) -> None:
    """Loading again, after a release, costs no more than the first time."""
    first = load_anew()
    first.release()
    second = load_anew()
    limit = peak_of(first).peak_bytes + SLACK
    within("the second load", peak_of(second).peak_bytes, limit, "the first one and 200 MB", second)
    second.release()


def test_disk(load_anew: Callable[[], LoadedModel]) -> None:
    """A load writes nothing to disk, but for what it offloads."""
    before = probes.written_bytes()
    loaded = load_anew()
    after = probes.written_bytes()
    if before is None or after is None:
        pytest.skip("what a process writes is not known on this platform")
    limit = loaded.nbytes_on("disk") + _DISK_SLACK
    loaded.release()
    if after - before > limit:
        allowed, wrote, _ = format_beside(limit, after - before)
        pytest.fail(f"the load wrote {wrote} to disk: more than {allowed}", pytrace=False)
