"""The first use of torch's kernels, before a step is measured: their code becomes resident, and autograd starts its thread."""

from typing import Final

import torch
from torch import nn
from torch.nn import functional

_WIDTH: Final = 64
_COMPUTED: Final = (torch.float32, torch.float16, torch.bfloat16)


def use_kernels_once(dtype: torch.dtype) -> None:
    """Train a small transformer on the processor. Random numbers that are drawn later stay the same.

    The process of a cold worker takes some 13 MB less for the steps after it: pages of torch's libraries, of which a fork
    inherits none. A dtype that torch does not compute in, such as float8, is passed over.
    """
    if dtype not in _COMPUTED:
        return
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        embedding, head = nn.Embedding(_WIDTH, _WIDTH, dtype=dtype), nn.Linear(_WIDTH, _WIDTH, dtype=dtype)
        layer = nn.TransformerEncoderLayer(_WIDTH, 4, _WIDTH, activation=functional.silu, batch_first=True, dtype=dtype)
        optimizer = torch.optim.AdamW(nn.ModuleList((embedding, layer, head)).parameters())
        tokens = torch.zeros((2, _WIDTH), dtype=torch.long)
        for _ in range(2):
            logits = head(layer(_normalized_and_rotated(embedding(tokens))))
            functional.cross_entropy(logits.float().flatten(0, 1), tokens.flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()


def _normalized_and_rotated(hidden: torch.Tensor) -> torch.Tensor:
    hidden = hidden * torch.rsqrt(hidden.float().square().mean(-1, keepdim=True) + 1e-6).to(hidden.dtype)
    half = hidden.shape[-1] // 2
    return torch.cat([hidden[..., half:], -hidden[..., :half]], -1) * torch.cos(hidden)
