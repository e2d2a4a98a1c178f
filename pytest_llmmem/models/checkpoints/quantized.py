"""Checkpoints with quantized weights: their method, and the number of parameters in their packed tensors.

Names and packings are defined by the libraries that write them: GPTQ and AWQ (``qweight``), compressed-tensors
(``weight_packed``), bitsandbytes (``weight.quant_state…``), FP8 (``weight_scale_inv``), MXFP4 (``…_blocks``), NVFP4 and MLX.
"""

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from pytest_llmmem.models.checkpoints.tensors import DTYPES, Tensor

_BESIDE: Final = re.compile(
    r"(.*\.)?(scales|qzeros|g_idx|biases|weight_scale(_inv|_2)?|input_scale|weight_zero_point|weight_g_idx|weight_shape"
    r"|[kv]_scale|SCB|weight_format|weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..+)|\w+_scales)"
)
"""Scales, zero points and tables beside a weight: not parameters of the model."""
_BITS: Final = 4
"""Bits of a packed number where the config does not say."""


def method_of(config: Mapping[str, Any], tensors: Sequence[Tensor]) -> str | None:
    """``"gptq"``; ``None`` for plain weights. Read from the config, or else from the tensor names."""
    told = config.get("quantization_config")
    if isinstance(told, Mapping):
        method = told.get("quant_method")
        return method if isinstance(method, str) else "quantized"
    if isinstance(config.get("quantization"), Mapping):
        return "mlx"
    if any(tensor.dtype.startswith(("Q", "IQ", "TQ", "MXFP")) for tensor in tensors):
        return "gguf"
    return next((method for pattern, method in _BY_NAME if any(pattern.search(each.name) for each in tensors)), None)


_BY_NAME: Final = (
    (re.compile(r"\.qweight$"), "gptq"),
    (re.compile(r"\.weight_packed$"), "compressed-tensors"),
    (re.compile(r"\.weight\.quant_state\."), "bitsandbytes"),
    (re.compile(r"\.weight_scale_inv$"), "fp8"),
    (re.compile(r"_blocks$"), "mxfp4"),
)


def parameters_of(tensors: Sequence[Tensor], config: Mapping[str, Any]) -> int:
    """Parameters of the original model: every packed number counts, scales do not."""
    names = {tensor.name for tensor in tensors}
    bits = bits_of(config)
    return sum(_elements(tensor, names, bits) for tensor in tensors)


def bits_of(config: Mapping[str, Any]) -> int:
    """Bits of a packed number, from the config."""
    told = config.get("quantization_config") or config.get("quantization") or {}
    groups = told.get("config_groups") if isinstance(told, Mapping) else None
    weights = (
        [group.get("weights") for group in groups.values() if isinstance(group, Mapping)]
        if isinstance(groups, Mapping)
        else []
    )
    found = [told.get("bits"), told.get("w_bit")] if isinstance(told, Mapping) else []
    found += [each.get("num_bits") for each in weights if isinstance(each, Mapping)]
    return next((bits for bits in found if type(bits) is int and 0 < bits <= 8), _BITS)


def _elements(tensor: Tensor, names: AbstractSet[str], bits: int) -> int:
    name = tensor.name
    width = DTYPES[tensor.dtype].bits if tensor.dtype in DTYPES else 0
    if name.endswith((".qweight", ".weight_packed", "_packed")):
        return tensor.elements * 2 if tensor.dtype == "uint8" else tensor.elements * width // bits
    if name.endswith("_blocks") and f"{name.removesuffix('_blocks')}_scales" in names:
        return tensor.elements * 2
    module = name.removesuffix("weight")
    if name.endswith(".weight") and tensor.dtype == "uint32" and f"{module}scales" in names:
        return tensor.elements * width // bits
    if name.endswith(".weight") and tensor.dtype == "uint8":
        return tensor.elements * 2  # bitsandbytes and NVFP4: two in a byte
    if _BESIDE.fullmatch(name) and _belongs(name, names):
        return 0
    return tensor.elements


def _belongs(name: str, names: AbstractSet[str]) -> bool:
    """Whether a weight of that scale exists: a model may also have a module called ``scales``."""
    module = name[: name.rfind(".weight") + 1] if ".weight." in name else name.rpartition(".")[0] + "."
    weights = (f"{module}{each}" for each in ("qweight", "weight", "weight_packed"))
    return any(each in names for each in weights) or f"{name.removesuffix('_scales')}_blocks" in names
