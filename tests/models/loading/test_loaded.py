"""What a loaded model says about itself."""

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_llmmem.core.readings import Peak
from pytest_llmmem.models.loading.loaded import LoadedModel
from pytest_llmmem.models.loading.request import installed
from tests.conftest import needs
from tests.models.loading.sample_loads import LLAMA, TIED, load, outputs, request, written

pytestmark = needs("torch", "transformers", "accelerate")

linux = needs("/proc")


def test_tied_weights_count_once(tmp_path: Path) -> None:
    loaded = load(request(written(tmp_path, TIED), tmp_path, dtype="float32"))

    assert loaded.nbytes - loaded.checkpoint.weights_bytes < 200_000  # buffers; the embedding alone has 131,072 bytes
    assert loaded.bits_per_parameter == 32
    assert loaded.nbytes_on("cpu") == loaded.nbytes
    assert loaded.nbytes_on("meta") == loaded.nbytes_on("disk") == loaded.disk_bytes == 0
    assert loaded.device_map == {"": "cpu"}


def test_its_repr_is_one_line_with_the_numbers(tmp_path: Path) -> None:
    loaded = load(request(written(tmp_path, LLAMA), tmp_path, dtype="float16"))

    assert repr(loaded).startswith("<LoadedModel default: LlamaForCausalLM, torch.float16, ")
    assert repr(loaded).endswith(" on cpu>")
    loaded.release()
    assert repr(loaded) == "<LoadedModel default: released>"


def test_bits_are_of_weights_not_of_buffers(tmp_path: Path) -> None:
    import torch

    loaded = load(request(written(tmp_path, LLAMA), tmp_path, dtype="float16"))
    loaded.model.register_buffer("large", torch.zeros(10**6))

    assert loaded.bits_per_parameter == 16
    assert loaded.nbytes > 4 * 10**6


@linux
@pytest.mark.skipif(installed("transformers") < (4, 57), reason="copied what it read")
def test_a_load_in_the_checkpoint_s_own_dtype_is_mapped_until_it_is_touched(tmp_path: Path) -> None:
    config = LLAMA | {"vocab_size": 100_000}
    loaded = load(request(written(tmp_path, config, shard_bytes=10**9), tmp_path, dtype="auto"))

    assert loaded.mapped_after_load_bytes > 20 * 10**6
    loaded.touch()
    assert loaded.mapped_nbytes == 0


def test_what_is_offloaded_is_on_disk_and_not_in_memory(tmp_path: Path) -> None:
    checkpoint = written(tmp_path, LLAMA, format="bin")

    loaded = load(request(checkpoint, tmp_path, dtype="float32"), "offload")

    weights = checkpoint.weights_bytes
    in_memory, on_disk = loaded.nbytes, loaded.nbytes_on("disk")
    assert in_memory < weights
    assert loaded.nbytes_on("meta") == 0
    assert 0 < on_disk <= loaded.disk_bytes
    assert on_disk + in_memory >= weights
    assert "disk" in loaded.device_map.values()
    outputs(loaded.model)


def test_a_weight_that_has_no_numbers_is_on_meta(tmp_path: Path) -> None:
    loaded = load(request(written(tmp_path, LLAMA), tmp_path, dtype="float32"))
    head = loaded.model.lm_head.weight

    loaded.model.lm_head.to("meta")

    assert loaded.nbytes_on("meta") == head.nbytes
    assert loaded.bits_per_parameter < 32


def test_copies_are_the_peak_over_the_bytes_that_stay(tmp_path: Path) -> None:
    loaded = load(request(written(tmp_path, LLAMA), tmp_path))
    peak = Peak(
        baseline_bytes=0,
        peak_bytes=3 * loaded.nbytes,
        peak_resident_bytes=0,
        peak_file_bytes=0,
        absolute_peak_bytes=0,
        error_bytes=0,
    )

    assert loaded.copies is None
    loaded.peak = peak
    assert loaded.copies == 3
    loaded.peak = replace(peak, peak_bytes=0)
    assert loaded.copies == 0


def test_a_released_model_is_gone(tmp_path: Path) -> None:
    loaded = load(request(written(tmp_path, LLAMA), tmp_path))

    loaded.release()

    assert loaded.mapped_nbytes in {0, None}
    with pytest.raises(RuntimeError, match="was released"):
        loaded.model  # noqa: B018 -- asking is the test
    with pytest.raises(RuntimeError, match="was released"):
        loaded.nbytes  # noqa: B018


def test_a_checkpoint_of_a_narrow_dtype_is_not_quantised_by_being_loaded(tmp_path: Path) -> None:
    def fraction(dtype: str, load_as: str) -> float:
        (tmp_path / dtype).mkdir()
        loaded: LoadedModel = load(request(written(tmp_path / dtype, LLAMA, dtype=dtype), tmp_path, dtype=load_as))
        return loaded.quantized_fraction

    assert fraction("float32", "float16") == 0
    assert fraction("bfloat16", "float32") == 0
