"""A pytest plugin for the environments of the regressions: a load that is not built in."""

from typing import Any

from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.strategy import Strategy


def pytest_llmmem_strategies() -> list[Strategy]:
    return [
        Strategy(name="gguf", summary="a GGUF file beside the checkpoint, as float16", load=load_gguf),
        Strategy(
            name="by_accelerate", summary="an empty model, filled by the names in the files", load=load_by_accelerate
        ),
        Strategy(name="torchao_int8", summary="torchao, 8 bits", bits=8, load=load_torchao),
        Strategy(name="quanto_int8", summary="optimum-quanto, 8 bits", bits=8, load=load_quanto),
    ]


def load_gguf(request: LoadRequest) -> Any:
    return request.from_pretrained(gguf_file="model.gguf", dtype="float16")


def load_by_accelerate(request: LoadRequest) -> Any:
    """The recipe of accelerate's documentation. The built-in strategy ``empty`` translates names that were changed."""
    from accelerate import init_empty_weights, load_checkpoint_in_model

    with init_empty_weights():
        model = request.initialized()
    load_checkpoint_in_model(model, str(request.checkpoint.path), device_map={"": "cpu"})
    return model


def load_torchao(request: LoadRequest) -> Any:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return request.from_pretrained(quantization_config=TorchAoConfig(Int8WeightOnlyConfig()))


def load_quanto(request: LoadRequest) -> Any:
    from transformers import QuantoConfig

    return request.from_pretrained(quantization_config=QuantoConfig(weights="int8"))
