"""Arguments of ``from_pretrained`` that a test passes on: the known names, and the errors for other names."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.models.checkpoints.tensors import DTYPES

KNOWN: Final = frozenset({
    "adapter_kwargs", "attn_implementation", "cache_dir", "config", "device_map", "device_mesh", "disable_mmap", "dtype",
    "experts_implementation", "force_download", "from_flax", "from_tf", "fusion_config", "generation_config", "gguf_file",
    "ignore_mismatched_sizes", "key_mapping", "load_in_4bit", "load_in_8bit", "local_files_only", "low_cpu_mem_usage",
    "max_memory", "offload_buffers", "offload_folder", "offload_state_dict", "output_loading_info", "quantization_config",
    "revision", "state_dict", "subfolder", "token", "torch_dtype", "tp_plan", "tp_size", "trust_remote_code", "use_kernels",
    "use_safetensors", "variant", "weights_only",
})  # fmt: skip
"""Arguments of any version since 4.40. Config attributes are accepted too, so only the library can refuse an unknown name."""

_SHORT: Final = {
    "fp16": "float16", "half": "float16", "f16": "float16", "bf16": "bfloat16", "fp32": "float32", "float": "float32",
    "f32": "float32", "fp64": "float64", "double": "float64",
}  # fmt: skip
_UNEXPECTED: Final = re.compile(r"unexpected keyword argument '(?P<name>\w+)'")


def check_dtype(options: Mapping[str, Any]) -> None:
    """Check the dtype. Raises ``ValueError`` for text that is not the name of a dtype."""
    for argument in ("dtype", "torch_dtype"):
        asked = options.get(argument)
        if not isinstance(asked, str) or asked.removeprefix("torch.") in {*DTYPES, "auto"}:
            continue
        close = _SHORT.get(asked.lower()) or nearest(asked, ("auto", "float16", "bfloat16", "float32", "float64"))
        meant = f"did you mean {close!r}?" if close else "write one like 'float16', or 'auto'"
        msg = f"{argument}={excerpt(repr(asked))} is not a dtype: {meant}"
        raise ValueError(msg)


def refused_argument(error: TypeError, keywords: Mapping[str, Any]) -> str | None:
    """The message about an argument that a library does not accept; ``None`` for other errors, and for known arguments."""
    match = _UNEXPECTED.search(str(error))
    name = match["name"] if match else ""
    if name not in keywords or name in KNOWN:
        return None
    close = nearest(name, KNOWN)
    return f"from_pretrained takes no argument {name!r}: {f'did you mean {close!r}?' if close else 'leave it out'}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar name; ``None`` where none is similar."""
    close = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.75)
    return close[0] if close else None
