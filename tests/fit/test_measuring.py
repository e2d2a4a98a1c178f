"""The program, measured and limited for real."""

import json
import os
from pathlib import Path

import pytest

from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.fit.groups import LimitedGroup
from pytest_llmmem.fit.measuring import measure, run_limited
from pytest_llmmem.fit.verifying import drop_page_cache
from pytest_llmmem.fit.workload import Workload
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.sources.source import parse_source, resolve
from pytest_llmmem.models.steps.spec import TrainSpec
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
    found = measure(Workload(folder=bert, load="float16", steps=1))

    assert WEIGHTS < found.peak_bytes < 1.3 * WEIGHTS
    assert 2.9 * WEIGHTS < found.peak_resident_bytes < 3.5 * WEIGHTS
    assert found.loaded_resident_bytes < 1.5 * WEIGHTS
    assert 50 * MB < found.base_unreclaimable_bytes < found.base_resident_bytes


def test_training_adds_gradients_and_the_state_of_the_optimizer(bert: Path, tmp_path: Path) -> None:
    # in float32, since kernels of float16 are slow on a processor and take memory of their own; without a large embedding,
    # of which the optimizer has temporary copies
    config = json.loads((bert / "config.json").read_text()) | {"num_hidden_layers": 6, "vocab_size": 2000}
    (folder := tmp_path / "small").mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    source = parse_source(f"synthetic:{folder}?dtype=float32", base=tmp_path)
    workload = Workload(folder=resolve(source, cache=tmp_path), load="default", train=TrainSpec(seq_len=8), steps=2)
    weights_bytes = read_checkpoint(workload.folder).weights_bytes

    found = measure(workload)

    # the weights are mapped, and those that the optimizer writes to become private
    assert 4 * weights_bytes < found.peak_bytes < 4.5 * weights_bytes
    assert found.peak_resident_bytes >= found.peak_bytes


def test_a_step_that_cannot_be_made_is_told_in_a_sentence(bert: Path) -> None:
    step = TrainSpec(seq_len=100_000)

    with pytest.raises(LlmmemError, match=r"run: seq_len is 100,000, and the model has 512 positions"):
        measure(Workload(folder=bert, load="default", train=step))


def test_what_a_load_raises_is_told_in_a_line(tmp_path: Path, bert: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "bert", "architectures": ["NoSuchModel"]}')
    (broken / "model.safetensors").symlink_to(bert / "model.safetensors")

    with pytest.raises(LlmmemError, match=r"the model could not be loaded and run: .*NoSuchModel"):
        measure(Workload(folder=broken, load="default"))


@in_a_group
def test_a_limit_below_the_mapped_weights_is_thrashing_that_the_kernel_counts(tmp_path: Path) -> None:
    source = parse_source("synthetic:bert-base?fill=random", base=tmp_path)
    folder = resolve(source, cache=tmp_path)
    workload = Workload(folder=folder, load="default", steps=1)

    drop_page_cache(folder)
    slow = run_limited(workload, 200 * MB)
    drop_page_cache(folder)
    fast = run_limited(workload, 700 * MB)

    assert slow.finished
    assert fast.finished
    assert slow.refaulted_bytes is not None
    assert fast.refaulted_bytes is not None
    assert slow.refaulted_bytes > 10 * MB > fast.refaulted_bytes


@in_a_group
def test_a_limit_below_the_copy_kills_and_one_above_it_does_not(bert: Path) -> None:
    workload = Workload(folder=bert, load="float16", steps=1)

    died = run_limited(workload, 150 * MB)
    lived = run_limited(workload, 900 * MB)

    assert (died.lived, died.finished, died.step_s) == (False, False, None)
    assert (lived.lived, lived.finished) == (True, True)
    assert lived.step_s is not None
    parent = own_group()
    assert parent is not None
    assert not list(parent.path.glob(f"llmmem-fit-{os.getpid()}-*"))
