"""The program, measured and limited for real."""

import os
from pathlib import Path

import pytest

from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.fit.groups import LimitedGroup
from pytest_llmmem.fit.measuring import measure, run_limited
from pytest_llmmem.fit.verifying import drop_page_cache
from pytest_llmmem.models.sources.source import parse_source, resolve
from pytest_llmmem.probes.cgroups import own_group
from tests.conftest import needs

pytestmark = needs("torch", "transformers")

MB = 10**6
WEIGHTS = 219 * MB
"""Of bert-base in float16."""


def has_groups() -> bool:
    try:
        LimitedGroup.make(100 * MB).remove()
    except OSError:
        return False
    return True


in_a_group = pytest.mark.skipif(not has_groups(), reason="needs a writable memory control group")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resolve(parse_source("synthetic:bert-base", base=Path.cwd()), cache=tmp_path_factory.mktemp("cache"))


def test_a_load_that_casts_is_seen_as_a_copy_and_its_shards_as_mapped_until_it_ends(bert: Path) -> None:
    found = measure(bert, "float16", forwards=1)

    assert WEIGHTS < found.peak_bytes < 1.3 * WEIGHTS
    assert 2.9 * WEIGHTS < found.peak_resident_bytes < 3.5 * WEIGHTS
    assert found.loaded_resident_bytes < 1.5 * WEIGHTS
    assert 50 * MB < found.base_unreclaimable_bytes < found.base_resident_bytes


def test_what_a_load_raises_is_told_in_a_line(tmp_path: Path, bert: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "bert", "architectures": ["NoSuchModel"]}')
    (broken / "model.safetensors").symlink_to(bert / "model.safetensors")

    with pytest.raises(LlmmemError, match=r"the model could not be loaded and run: .*NoSuchModel"):
        measure(broken, "default")


@in_a_group
def test_a_limit_below_the_mapped_weights_is_thrashing_that_the_kernel_counts(tmp_path: Path) -> None:
    source = parse_source("synthetic:bert-base?fill=random", base=tmp_path)
    folder = resolve(source, cache=tmp_path)

    drop_page_cache(folder)
    slow = run_limited(folder, "default", 200 * MB, forwards=1)
    drop_page_cache(folder)
    fast = run_limited(folder, "default", 700 * MB, forwards=1)

    assert slow.finished
    assert fast.finished
    assert slow.refaulted_bytes is not None
    assert fast.refaulted_bytes is not None
    assert slow.refaulted_bytes > 10 * MB > fast.refaulted_bytes


@in_a_group
def test_a_limit_below_the_copy_kills_and_one_above_it_does_not(bert: Path) -> None:
    died = run_limited(bert, "float16", 150 * MB, forwards=1)
    lived = run_limited(bert, "float16", 900 * MB, forwards=1)

    assert (died.lived, died.finished, died.forward_s) == (False, False, None)
    assert (lived.lived, lived.finished) == (True, True)
    assert lived.forward_s is not None
    parent = own_group()
    assert parent is not None
    assert not list(parent.path.glob(f"llmmem-fit-{os.getpid()}-*"))
