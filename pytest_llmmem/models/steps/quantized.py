"""Substitutes for layers that bitsandbytes quantizes, on fake tensors: their bytes, and the tensors of their passes.

``Params4bit`` and ``Int8Params`` cannot be made of fake tensors, and their kernels do not support them.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn

_BLOCK = 64
"""Weights that share a scale: ``blocksize`` of ``bitsandbytes.functional.quantize_4bit``."""

_NESTED = 256
"""Scales that share a second-level scale in double quantization: ``compress_statistics``."""

_CODES = 64
"""Bytes of the table of 16 values for 4-bit codes."""

_NESTED_CODES = 1024 + 4
"""Bytes of the table of 256 values for quantized scales, and of their offset."""


def quantize_fake(
    model: nn.Module, quantization: Literal["int8", "nf4"], *, compute_dtype: torch.dtype, nested: bool
) -> None:
    """Replace the layers that transformers would have quantized: every linear layer but the head."""
    for parent, name, linear in list(_linears(model)):
        stand_in = _Int8(linear) if quantization == "int8" else _Nf4(linear, compute_dtype, nested=nested)
        setattr(parent, name, stand_in)


def _linears(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    left = _left_alone(model)
    for path, module in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if type(module) is nn.Linear and "lora_" not in path and not any(each in path.split(".") for each in left):
            yield model.get_submodule(parent), name, module


def _left_alone(model: Any) -> set[str]:
    from transformers.quantizers.base import get_keys_to_not_convert

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {part for key in get_keys_to_not_convert(base) for part in key.split(".")[-1:]}


class _Nf4(nn.Module):  # type: ignore[misc]  # torch has no types here
    """Half a byte for each weight, and a scale for each block: float32, or quantized again."""

    def __init__(self, linear: nn.Linear, compute_dtype: torch.dtype, *, nested: bool) -> None:
        super().__init__()
        elements, device = linear.weight.numel(), linear.weight.device
        scales = math.ceil(elements / _BLOCK)
        scale_bytes = scales + 4 * math.ceil(scales / _NESTED) + _NESTED_CODES if nested else 4 * scales
        nbytes = math.ceil(elements / 2) + scale_bytes + _CODES
        self.weight = nn.Parameter(torch.empty(nbytes, dtype=torch.uint8, device=device), requires_grad=False)
        self.bias = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._shape, self._dtype = linear.weight.shape, compute_dtype

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result = _Dequantized.apply(inputs, self.weight, self._shape, self._dtype)
        result = result if self.bias is None else result + self.bias
        # peft does the same after each 4-bit layer with an adapter
        return result.clone()


class _Int8(nn.Module):  # type: ignore[misc]  # torch has no types here
    """One byte for each weight, and a float32 for each row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        nbytes, device = linear.weight.numel() + 4 * linear.out_features, linear.weight.device
        self.weight = nn.Parameter(torch.empty(nbytes, dtype=torch.int8, device=device), requires_grad=False)
        self.bias = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._shape = linear.weight.shape

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result = _Int8Product.apply(inputs, self.weight, self._shape)
        return result if self.bias is None else result + self.bias


class _Dequantized(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    """A product that dequantizes the weight in the forward and in the backward pass, and keeps no activation."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, packed: torch.Tensor, shape: Any, dtype: torch.dtype) -> Any:
        ctx.about = packed, shape, dtype, inputs.dtype
        weight = torch.empty(shape, dtype=dtype, device=inputs.device)
        return (inputs.to(dtype) @ weight.t()).to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        _packed, shape, dtype, wanted = ctx.about
        weight = torch.empty(shape, dtype=dtype, device=gradient.device)
        return (gradient.to(dtype) @ weight).to(wanted), None, None, None


class _Int8Product(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    """A product that quantizes the inputs row by row and keeps them quantized; the product is int32."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, packed: torch.Tensor, shape: Any) -> Any:
        flat = inputs.reshape(-1, inputs.shape[-1])
        rows = torch.empty(flat.shape, dtype=torch.int8, device=inputs.device)
        scales = torch.empty(flat.shape[0], dtype=torch.float32, device=inputs.device)
        ctx.about = packed, shape, inputs.dtype
        product = torch.empty((flat.shape[0], shape[0]), dtype=torch.int32, device=inputs.device)
        del rows, scales
        return product.to(inputs.dtype).reshape(*inputs.shape[:-1], shape[0])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        _packed, shape, wanted = ctx.about
        weight = torch.empty(shape, dtype=wanted, device=gradient.device)
        return (gradient.to(wanted) @ weight).to(wanted), None, None
