"""A program that reads folders with a ``config.json``, and prints the tensors that ``save_pretrained`` writes for each.

It is a separate program because it imports torch, which must never happen in the process that forks the workers. It answers one
folder after the other, because the imports take seconds. It is run by its path, and so imports nothing of this project.
"""

import json
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_DATA_BYTES = 8 * 2**30
"""Memory limit of the program. A model of 40,000 modules takes 0.5 GB; one with endless layers would take everything."""

_BLOCK = 32
"""Numbers with one scale in MXFP4, two in a byte."""


def main() -> None:
    """Answer each line of the standard input, which names a folder, by a line of the standard output."""
    limit_memory()
    answers = sys.stdout
    sys.stdout = sys.stderr  # messages of the libraries must not be read as an answer
    for folder in sys.stdin:
        answers.write(json.dumps(answer(Path(folder.rstrip("\n")))) + "\n")
        answers.flush()


def limit_memory() -> None:
    """Limit the memory of this process to more than any model without weights needs."""
    if sys.platform == "win32":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or most > _DATA_BYTES:
        resource.setrlimit(resource.RLIMIT_DATA, (_DATA_BYTES, most))


def answer(folder: Path) -> dict[str, Any]:
    """The description of the folder's model, or ``{"error": ...}`` with the reason that there is none."""
    try:
        return describe(folder)
    except Exception as error:  # noqa: BLE001 -- any config is tried, and the next one is answered all the same
        return {"error": traceback.format_exception_only(error)[-1].strip()}


def describe(folder: Path) -> dict[str, Any]:
    """The class, and the tensors that ``save_pretrained`` writes: ``(name, dtype, shape)``, with ``None`` for the config's dtype.

    The model is built without memory, in the dtype of its config.
    """
    import torch
    import transformers

    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = transformers.CONFIG_MAPPING[raw["model_type"]].from_pretrained(folder)
    # other implementations may be code from the Hub; none changes a tensor
    config._attn_implementation = "eager"  # noqa: SLF001 -- there is no public name
    model_class = find_model_class(transformers, config)
    dtype = getattr(torch, raw["torch_dtype"])
    if dtype.itemsize == 1:
        dtype = torch.bfloat16  # torch builds no model in float8
    quantization = raw.get("quantization_config") or {}
    with torch.device("meta"):
        model = model_class._from_config(config, torch_dtype=dtype)  # noqa: SLF001 -- from_config is of Auto classes, which take no architecture
        _quantize(model, config, quantization)
    return {
        "architecture": model_class.__name__,
        "tensors": [
            (name, None if tensor.dtype == dtype else str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for name, tensor in as_published(_saved(model), quantization).items()
        ],
    }


def find_model_class(transformers: Any, config: Any) -> Any:
    """The first class in ``architectures`` that exists, or else the most specific known class for this kind of config."""
    names = config.architectures or ()
    for name in names:
        found = getattr(transformers, name, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    if names:
        msg = f"{' and '.join(names)} is no model of transformers {transformers.__version__}"
        raise LookupError(msg)
    for mapping in ("MODEL_FOR_CAUSAL_LM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM", "MODEL_FOR_MASKED_LM", "MODEL"):
        classes = getattr(transformers, f"{mapping}_MAPPING")
        if type(config) in classes:
            found = classes[type(config)]
            return found[0] if isinstance(found, (tuple, list)) else found
    msg = f"no model class is known for {type(config).__name__}: name one in 'architectures'"
    raise LookupError(msg)


def _saved(model: Any) -> dict[str, Any]:
    """The tensors that ``save_pretrained`` gives to the writer of its files, in order; they have no memory.

    It decides itself which names of tied weights remain, and which names the architecture's checkpoints have.
    """
    import transformers.modeling_utils

    tensors: dict[str, Any] = {}
    transformers.modeling_utils.safe_save_file = lambda shard, *_args, **_options: tensors.update(shard)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, max_shard_size=2**62)
    return tensors


def _quantize(model: Any, config: Any, quantization: dict[str, Any]) -> None:
    """Replace the layers that FP8 quantizes; the quantizer knows which. In MXFP4 only the experts of gpt-oss are published."""
    if quantization.get("quant_method") != "fp8":
        return
    if not quantization.get("weight_block_size"):
        msg = "FP8 without 'weight_block_size': the shapes of its scales are not known"
        raise ValueError(msg)
    from transformers.quantizers.auto import AutoHfQuantizer

    AutoHfQuantizer.from_config(config.quantization_config, pre_quantized=True).preprocess_model(model=model)


def as_published(tensors: dict[str, Any], quantization: dict[str, Any]) -> dict[str, Any]:
    """The tensors with the scales and packed weights that published checkpoints have beside or in place of them."""
    match quantization.get("quant_method"):
        case "fp8":
            return dict(_with_block_scales(tensors, *quantization["weight_block_size"]))
        case "mxfp4":
            return dict(_with_packed_experts(tensors))
    return tensors


def _with_block_scales(tensors: dict[str, Any], rows: int, columns: int) -> Iterator[tuple[str, Any]]:
    """A float32 scale for each block of a matrix in float8, as in DeepSeek-V3. The quantizer's own are of merged experts."""
    import torch

    for name, tensor in tensors.items():
        if name.endswith("_scale_inv"):
            continue
        yield name, tensor
        if tensor.dtype.itemsize == 1:
            height, width = tensor.shape
            yield f"{name}_scale_inv", torch.empty(-(-height // rows), -(-width // columns), device="meta")


def _with_packed_experts(tensors: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Experts transposed, two numbers in a byte, a byte of scale for each block, as in gpt-oss."""
    import torch

    for name, tensor in tensors.items():
        if not name.endswith((".experts.gate_up_proj", ".experts.down_proj")):
            yield name, tensor
            continue
        experts, inputs, outputs = tensor.shape
        blocks = (experts, outputs, inputs // _BLOCK)
        yield f"{name}_blocks", torch.empty(*blocks, _BLOCK // 2, dtype=torch.uint8, device="meta")
        yield f"{name}_scales", torch.empty(blocks, dtype=torch.uint8, device="meta")


if __name__ == "__main__":
    main()
