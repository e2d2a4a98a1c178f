"""A pytest plugin for the environments of the regressions: a load that is not built in."""

from typing import Any

from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.strategy import Strategy


def pytest_llmmem_strategies() -> list[Strategy]:
    return [Strategy(name="gguf", summary="a GGUF file beside the checkpoint, as float16", load=load_gguf)]


def load_gguf(request: LoadRequest) -> Any:
    return request.from_pretrained(gguf_file="model.gguf", dtype="float16")
