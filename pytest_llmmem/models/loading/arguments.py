"""Arguments of ``from_pretrained`` that a test passes on: the known names, and the errors for other names."""

import contextlib
import difflib
import re
from collections.abc import Generator, Iterable, Mapping
from typing import Any, Final

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.core.sizes import parse_size
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


def check_values(options: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` for a dtype, a ``device_map`` or a ``max_memory`` that no library takes."""
    _check_dtype(options)
    _check_device_map(options.get("device_map"))
    _check_max_memory(options.get("max_memory"))


def name_of_dtype(dtype: Any) -> str | None:
    """``"float16"``, of a name or a ``torch.dtype``. ``None`` for ``"auto"``, and for a dict with a dtype for each part."""
    name = str(dtype).removeprefix("torch.")
    return name if name in DTYPES else None


def as_bytes(cap: str | int) -> int:
    """Bytes of a ``max_memory`` value, which may be text like ``"10GiB"``. Raises ``ValueError`` for other text."""
    return parse_size(cap) if isinstance(cap, str) else int(cap)


def _check_dtype(options: Mapping[str, Any]) -> None:
    for argument in ("dtype", "torch_dtype"):
        asked = options.get(argument)
        if not isinstance(asked, str) or asked.removeprefix("torch.") in {*DTYPES, "auto"}:
            continue
        close = _SHORT.get(asked.lower()) or nearest(asked, ("auto", "float16", "bfloat16", "float32", "float64"))
        meant = f"did you mean {close!r}?" if close else "write one like 'float16', or 'auto'"
        msg = f"{argument}={excerpt(repr(asked))} is not a dtype: {meant}"
        raise ValueError(msg)
    if {"dtype", "torch_dtype"} <= options.keys():
        msg = "dtype and torch_dtype are two names of one argument: leave torch_dtype out"
        raise ValueError(msg)


def _check_device_map(device_map: Any) -> None:
    if isinstance(device_map, list | tuple | set | float):
        msg = (
            f"device_map={excerpt(repr(device_map))} maps no module to a device: "
            "write 'auto', a device like 'cpu' or 'cuda:0', or a dict like {'': 'cpu'}"
        )
        raise ValueError(msg)  # noqa: TRY004 -- one error type for every bad value


def _check_max_memory(caps: Any) -> None:
    if caps is None:
        return
    if not isinstance(caps, Mapping):
        msg = f"max_memory={excerpt(repr(caps))} does not name devices: write one like {{'cpu': '8GB', 0: '20GB'}}"
        raise ValueError(msg)  # noqa: TRY004 -- one error type for every bad value
    for device, cap in caps.items():
        try:
            as_bytes(cap)
        except (TypeError, ValueError):
            msg = f"max_memory[{device!r}]={excerpt(repr(cap))} is not a memory size: write one like '8GB', or bytes"
            raise ValueError(msg) from None


@contextlib.contextmanager
def refusing_unknown(keywords: Mapping[str, Any]) -> Generator[None]:
    """Raise ``CheckpointError`` in place of a library's ``TypeError`` about an argument that it does not accept."""
    __tracebackhide__ = True
    try:
        yield
    except TypeError as error:
        if sentence := refused_argument(error, keywords):
            raise CheckpointError(sentence) from None
        raise


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
    close = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.8)
    return close[0] if close else None
