"""Choices that torch makes on a GPU, for fake tensors on the CPU.

A build of torch without CUDA aborts the process at the first operation on a fake CUDA tensor that needs a gradient.
Two differences to the CPU matter for memory: the attention kernel, and the tensors that dropout keeps. The dtype of each
operation under ``torch.autocast`` follows the CPU's lists.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch.nn import functional

from pytest_llmmem.models.steps.torch_internals import EFFICIENT_ATTENTION, FLASH_ATTENTION

_FLASH_HEAD = 256
"""The largest head dimension of flash attention, which is the same for queries and values."""


@contextlib.contextmanager
def rules_of(device: Literal["cpu", "cuda"]) -> Iterator[None]:
    """Make torch choose operations as on that device."""
    if device == "cpu":
        yield
        return
    before = functional.scaled_dot_product_attention, functional.dropout
    functional.scaled_dot_product_attention, functional.dropout = _attention, _dropout
    try:
        yield
    finally:
        functional.scaled_dot_product_attention, functional.dropout = before


def _attention(  # noqa: PLR0917 -- torch's own signature
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Flash attention where possible, else memory-efficient attention: neither keeps a matrix of length by length."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    narrow = query.dtype in {torch.float16, torch.bfloat16}
    if attn_mask is None and narrow and query.shape[-1] == value.shape[-1] <= _FLASH_HEAD:
        return FLASH_ATTENTION(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, float("-inf"))
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    keeps = torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value))
    return EFFICIENT_ATTENTION(query, key, value, attn_mask, keeps, dropout_p, is_causal, scale=scale)[0]


def _dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: A002, ARG001 -- torch's own signature
    return torch.native_dropout(input, p, True)[0] if training and p else input
