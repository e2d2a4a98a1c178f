"""Bytes of a model, told from the addresses of its tensors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmmem.models.loading.storage import nbytes_by_device, plain_tensors, quantized_elements, union
from tests.conftest import needs

SPANS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30)).map(lambda span: (span[0], sum(span))))


@given(SPANS)
def test_a_union_covers_the_same_ground_once(spans: list[tuple[int, int]]) -> None:
    joined = list(union(spans))

    covered = [place for start, end in joined for place in range(start, end)]
    assert covered == sorted({place for start, end in spans for place in range(start, end)})


@needs("torch")
def test_tied_weights_and_views_of_them_count_once() -> None:
    import torch

    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(10, 8), "head": torch.nn.Linear(8, 10, bias=False)})
    model["head"].weight = model["embed"].weight
    model.register_buffer("first_row", model["embed"].weight.detach()[0])

    assert nbytes_by_device(model) == {"cpu": 10 * 8 * 4}


@needs("torch")
def test_weights_by_themselves_are_told_from_buffers() -> None:
    import torch

    model = torch.nn.BatchNorm1d(5)

    assert nbytes_by_device(model, of="weights") == {"cpu": 2 * 5 * 4}
    assert nbytes_by_device(model) == {"cpu": 2 * 5 * 4 + 2 * 5 * 4 + 8}


@needs("torch")
def test_a_slice_of_a_larger_storage_counts_what_it_covers() -> None:
    import torch

    model = torch.nn.Linear(4, 4, bias=False)
    model.weight = torch.nn.Parameter(torch.zeros(100, 4)[10:14])

    assert nbytes_by_device(model) == {"cpu": 4 * 4 * 4}


@needs("torch")
def test_a_weight_without_numbers_is_on_meta_once_per_tensor() -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False, device="meta"), torch.nn.Linear(4, 4, bias=False))
    model.add_module("again", model[0])

    assert nbytes_by_device(model) == {"meta": 64, "cpu": 64}


@needs("torch")
def test_an_attribute_on_meta_is_neither_memory_nor_a_weight() -> None:
    import torch

    model = torch.nn.Linear(4, 4, bias=False)
    model.replaced = [torch.empty(4, 4, device="meta")]

    assert nbytes_by_device(model) == {"cpu": 64}


@needs("torch", "accelerate")
@pytest.mark.filterwarnings("ignore")
def test_what_accelerate_offloads_is_where_it_reads_it_from(tmp_path: "object") -> None:
    import accelerate
    import torch

    on_disk, in_memory = (torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()) for _ in range(2))

    accelerate.disk_offload(on_disk, str(tmp_path), execution_device="cpu")
    accelerate.cpu_offload(in_memory, execution_device="cpu")

    assert all(weight.is_meta for model in (on_disk, in_memory) for weight in model.parameters())
    assert nbytes_by_device(on_disk) == {"disk": 80}
    assert nbytes_by_device(in_memory) == {"cpu": 80}
    assert [device for device, _ in plain_tensors(in_memory)] == ["cpu", "cpu"]


@needs("torch")
def test_a_narrow_float_has_no_fewer_bits_than_its_own() -> None:
    import torch

    model = torch.nn.Linear(64, 4, dtype=torch.float16)

    assert quantized_elements(model, bits=16) == 0
    assert quantized_elements(model, bits=17) == 64 * 4 + 4


def quantized(config: object) -> tuple[int, float]:
    """Bytes and bits of one quantized layer of 128 x 256 numbers."""
    import torch
    from torchao.quantization import quantize_

    model = torch.nn.Sequential(torch.nn.Linear(256, 128, bias=False, dtype=torch.bfloat16))
    quantize_(model, config)
    return nbytes_by_device(model)["cpu"], quantized_elements(model, bits=16)


@needs("torchao")
@pytest.mark.filterwarnings("ignore")
def test_torchao_s_layers_are_taken_apart() -> None:
    from torchao.quantization import Int8WeightOnlyConfig

    nbytes, elements = quantized(Int8WeightOnlyConfig())

    assert elements == 256 * 128
    assert 256 * 128 < nbytes < 1.1 * 256 * 128


@needs("optimum")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quanto_s_layers_are_taken_apart(bits: int) -> None:
    import torch
    from optimum import quanto

    model = torch.nn.Sequential(torch.nn.Linear(256, 128, bias=False))
    quanto.quantize(model, weights={2: quanto.qint2, 4: quanto.qint4, 8: quanto.qint8}[bits])
    quanto.freeze(model)

    assert quantized_elements(model, bits=16) == 256 * 128
    assert bits <= 8 * nbytes_by_device(model, of="weights")["cpu"] / (256 * 128) < bits + 1


@needs("bitsandbytes", "torch")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("double", "beside"), [(False, 4 * 512 + 4 * 16), (True, 512 + 4 * (16 + 256 + 2 + 1))])
def test_the_scales_of_4_bits_are_counted(double: bool, beside: int) -> None:
    import bitsandbytes
    import torch

    weight = torch.randn(128, 256)
    layer = bitsandbytes.nn.Linear4bit(256, 128, bias=False, quant_type="nf4", compress_statistics=double)
    layer.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=double)
    layer.to("cpu")

    assert nbytes_by_device(layer) == {"cpu": 128 * 256 // 2 + beside}
    assert quantized_elements(layer, bits=16) == 128 * 256


@needs("bitsandbytes", "torch")
@pytest.mark.filterwarnings("ignore")
def test_the_scales_of_8_bits_are_counted_before_and_after_the_first_use() -> None:
    import bitsandbytes
    import torch

    layer = bitsandbytes.nn.Linear8bitLt(256, 128, bias=False, has_fp16_weights=False)
    layer.weight = bitsandbytes.nn.Int8Params(torch.randn(128, 256), requires_grad=False, has_fp16_weights=False)
    layer.to("cpu")
    before = nbytes_by_device(layer)
    layer(torch.randn(2, 256))

    assert before == nbytes_by_device(layer) == {"cpu": 128 * 256 + 4 * 128}
    assert quantized_elements(layer, bits=16) == 128 * 256
