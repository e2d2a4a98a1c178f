"""Steps on fake tensors beside the same steps on real ones, and what a prediction costs.

    python bench/steps.py                       # every row: 0.8 GB, some minutes
    python bench/steps.py --row bert --row lora
    python bench/steps.py --part cost --part large

Rows with lora need peft, those with nf4 and int8 bitsandbytes. One process each: peaks are of tensors, so none disturbs another.
"""

import argparse
import dataclasses
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from _run import MB, table, verdict

from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.models.steps.spec import GenerateSpec, PredictRequest, TrainSpec

SMALL = {"hidden_size": 768, "num_hidden_layers": 2, "num_attention_heads": 12, "vocab_size": 16000}
LLAMA = SMALL | {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "intermediate_size": 2048,
    "num_key_value_heads": 12,
    "max_position_embeddings": 4096,
}
NEOX = SMALL | {
    "model_type": "gpt_neox",
    "architectures": ["GPTNeoXForCausalLM"],
    "intermediate_size": 3072,
    "max_position_embeddings": 2048,
}
BERT = SMALL | {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "intermediate_size": 3072,
    "max_position_embeddings": 1024,
}
GQA = LLAMA | {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16, "num_key_value_heads": 4}
MIXTRAL = LLAMA | {
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_local_experts": 8,
}
QWEN_MOE = LLAMA | {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 256,
    "intermediate_size": 512,
    "moe_intermediate_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "num_experts": 16,
    "num_experts_per_tok": 4,
}
T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 512,
    "d_ff": 1024,
    "d_kv": 64,
    "num_layers": 2,
    "num_heads": 8,
    "vocab_size": 16000,
    "decoder_start_token_id": 0,
}
VISION = {
    "model_type": "llava",
    "image_token_id": 15999,
    "architectures": ["LlavaForConditionalGeneration"],
    "text_config": LLAMA
    | {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "num_key_value_heads": 8},
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 56,
        "patch_size": 14,
    },
}
STEP = {"batch_size": 2, "seq_len": 256}


def row(
    config: Mapping[str, Any] = LLAMA, *, dtype: str = "float32", load: str | None = None, **step: Any
) -> PredictRequest:
    return PredictRequest(
        config=config,
        step=TrainSpec.parse(STEP | step),
        dtype=dtype,
        device="cpu",
        quantization=load,
        quantizes_scales=load == "nf4",
    )


ROWS = {
    "llama": row(),
    "bf16": row(dtype="bfloat16"),
    "sgd": row(optimizer="sgd"),
    "adamw-foreach": row(optimizer="adamw-foreach"),
    "adamw-fused": row(optimizer="adamw-fused"),
    "adafactor": row(optimizer="adafactor"),
    "b4 s128": row(batch_size=4, seq_len=128),
    "checkpointing": row(checkpointing=True),
    "checkpointing reentrant": row(checkpointing="reentrant"),
    "b1 s512": row(batch_size=1, seq_len=512),
    "b1 accumulation 2": row(batch_size=1, accumulation=2),
    "autocast bf16": row(autocast="bfloat16"),
    "neox": row(NEOX),
    "bert": row(BERT),
    "t5": row(T5),
    "gqa bf16 checkpointing": row(GQA, dtype="bfloat16", checkpointing=True),
    "mixtral": row(MIXTRAL),
    "mixtral bf16": row(MIXTRAL, dtype="bfloat16"),
    "qwen3-moe": row(QWEN_MOE),
    "qwen3-moe bf16": row(QWEN_MOE, dtype="bfloat16"),
    "llava, text alone": row(VISION),
    "llava, 2 pictures": row(VISION, images=2),
    "llava bf16, 2 pictures": row(VISION, dtype="bfloat16", images=2),
    "lora 16": row(lora=16),
    "lora 16 checkpointing": row(lora=16, checkpointing=True),
    "lora 16 nf4 bf16": row(lora=16, dtype="bfloat16", load="nf4"),
    "lora 16 nf4 bf16 checkpointing": row(lora=16, dtype="bfloat16", load="nf4", checkpointing=True),
    "lora 16 int8 bf16": row(lora=16, dtype="bfloat16", load="int8"),
    "generate bf16": dataclasses.replace(
        row(dtype="bfloat16"), step=GenerateSpec(batch_size=2, prompt=128, new_tokens=16)
    ),
}
ALLOWED = {"nf4": 0.005, "int8": 0.04, None: 0.001}

LARGE = {
    "7B full b1 s2048": ("synthetic:midm-7b", {"seq_len": 2048}, None, 8),
    "70B full checkpointing": ("synthetic:llama-3.1-70b", {"seq_len": 2048, "checkpointing": True}, None, 20),
    "70B QLoRA checkpointing": (
        "synthetic:llama-3.1-70b",
        {"seq_len": 2048, "checkpointing": True, "lora": 16},
        "nf4",
        30,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", choices=ROWS)
    parser.add_argument("--part", action="append", choices=("rows", "cost", "large"))
    arguments = parser.parse_args()
    # large first: the high-water mark of a child begins at the size of its parent
    for part in arguments.part or ("large", "rows", "cost"):
        {"rows": lambda: show_rows(arguments.row or list(ROWS)), "cost": show_cost, "large": show_large}[part]()


def show_rows(names: list[str]) -> None:
    """Predicted and measured peaks of every phase and kind."""
    missing = [package for package in ("peft", "bitsandbytes") if find_spec(package) is None]
    lines, exact = [], 0
    for name in names:
        request = ROWS[name]
        needs = {"peft": getattr(request.step, "lora", None), "bitsandbytes": request.quantization}
        if lacking := [package for package in missing if needs[package]]:
            lines.append((name, f"needs {lacking[0]}", "", "", "", ""))
            continue
        lines.append((name, *compare(request)))
        exact += lines[-1][3] == "0"
        print(*lines[-1], sep="\t", file=sys.stderr, flush=True)
    table(("configuration", "predicted MB", "measured MB", "worst, bytes", "worst", ""), *lines)
    print(f"equal to the byte: {exact} of {len(names)}")


def compare(request: PredictRequest) -> tuple[str, ...]:
    from pytest_llmmem.models.steps.prediction import predict

    try:
        predicted, measured = predict(request), measure(request)
    except Exception as error:  # noqa: BLE001 -- one row fails, the others are run
        return f"{type(error).__name__}: {str(error)[:160]}", "", "", "", "FAILED"
    worst = max(differences(predicted, measured))
    share = worst / measured.peak_bytes
    held = share <= ALLOWED[request.quantization]
    peaks = f"{predicted.peak_bytes / MB:.1f}", f"{measured.peak_bytes / MB:.1f}"
    return *peaks, f"{worst}", f"{share:.3%}", verdict(held)


def differences(predicted: StepMemory, measured: StepMemory) -> Iterator[int]:
    """Of each phase's peak, and of the most that each kind held."""
    peaks = {(each.step, each.phase): each.peak_bytes for each in measured.phases}
    for each in predicted.phases:
        yield abs(each.peak_bytes - peaks.get((each.step, each.phase), 0))
    for kind in predicted.largest_by_kind.keys() | measured.largest_by_kind.keys():
        if kind != "inputs":
            yield abs(predicted.largest_by_kind.get(kind, 0) - measured.largest_by_kind.get(kind, 0))


def measure(request: PredictRequest) -> StepMemory:
    """The same step on real tensors."""
    from pytest_llmmem.models.steps.adapters import prepare, quietly
    from pytest_llmmem.models.steps.generation import run_generation
    from pytest_llmmem.models.steps.optimizers import make_optimizer
    from pytest_llmmem.models.steps.phases import GenerationPhases
    from pytest_llmmem.models.steps.tracker import StorageTracker
    from pytest_llmmem.models.steps.training import run_training

    gc.collect()
    step = request.step
    with quietly():
        model = make_real(request)
        if isinstance(step, GenerateSpec):
            tracker = StorageTracker(model.eval(), phases=GenerationPhases())
            with tracker:
                run_generation(model, step, device="cpu")
            return tracker.memory()
        model = prepare(model, step)
        optimizer = make_optimizer(step.optimizer, model.parameters(), device="cpu", are_fake=False)
        tracker = StorageTracker(model, optimizer)
        with tracker:
            run_training(model, optimizer, step, device="cpu")
    return tracker.memory()


def make_real(request: PredictRequest) -> Any:
    """The model with small random weights, quantized as transformers would have loaded it."""
    import torch

    from pytest_llmmem.models.steps.fake_model import build_on_meta

    model = build_on_meta(request.config, dtype=request.dtype)
    model.to_empty(device="cpu")
    model.tie_weights()
    for each in (*model.parameters(), *model.buffers()):
        if each.is_floating_point():
            each.data.uniform_(-0.02, 0.02)
        else:
            each.zero_()
    if request.quantization:
        quantize(model, request, getattr(torch, request.dtype))
    return model


def quantize(model: Any, request: PredictRequest, dtype: Any) -> None:
    import bitsandbytes as bnb
    from torch import nn
    from transformers.quantizers.base import get_keys_to_not_convert

    model.requires_grad_(False)
    left = {key.rpartition(".")[2] for key in get_keys_to_not_convert(model)}
    for path, module in list(model.named_modules()):
        if type(module) is not nn.Linear or path.rpartition(".")[2] in left:
            continue
        bias, sizes = module.bias is not None, (module.in_features, module.out_features)
        if request.quantization == "nf4":
            new = bnb.nn.Linear4bit(*sizes, bias=bias, compute_dtype=dtype, quant_type="nf4", compress_statistics=True)
            new.weight = bnb.nn.Params4bit(
                module.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True, module=new
            ).to("cpu")
        else:
            new = bnb.nn.Linear8bitLt(*sizes, bias=bias, has_fp16_weights=False, threshold=0.0)
            new.weight = bnb.nn.Int8Params(module.weight.data, requires_grad=False, has_fp16_weights=False).to("cpu")
        new.bias = module.bias
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, new)
    setattr(model, "is_loaded_in_4bit" if request.quantization == "nf4" else "is_loaded_in_8bit", True)


def show_cost() -> None:
    """Steps with and without the tracker, of one model and in turns: processor time."""
    import contextlib

    from pytest_llmmem.models.steps.adapters import prepare, quietly
    from pytest_llmmem.models.steps.optimizers import make_optimizer
    from pytest_llmmem.models.steps.tracker import StorageTracker
    from pytest_llmmem.models.steps.training import run_training

    request = row(batch_size=1, steps=1)
    with quietly():
        model = prepare(make_real(request), request.step)
    optimizer = make_optimizer(request.step.optimizer, model.parameters(), device="cpu", are_fake=False)

    def spent(tracking: Any) -> float:
        began = time.process_time()
        with tracking:
            run_training(model, optimizer, request.step, device="cpu")
        return time.process_time() - began

    spent(contextlib.nullcontext())
    ratios = sorted(spent(StorageTracker(model, optimizer)) / spent(contextlib.nullcontext()) for _ in range(5))
    print(f"with the tracker a step takes {ratios[2] - 1:+.1%}, {ratios[0] - 1:+.1%} to {ratios[-1] - 1:+.1%} of 5: "
          f"{verdict(ratios[2] <= 1.25)}")  # fmt: skip


def show_large() -> None:
    """Predictions in a process of their own, without weights."""
    lines = []
    for name, (source, step, load, allowed_s) in LARGE.items():
        if "lora" in step and find_spec("peft") is None:
            continue
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        options = [f"--{key.replace('seq_len', 'seq')}={value}" for key, value in step.items() if value is not True]
        options += [f"--{key}" for key, value in step.items() if value is True]
        options += ["--load", load, "--double-quantization"] if load else []
        command = [sys.executable, "-m", "pytest_llmmem", "estimate", source, "--train", *options, "--json"]
        with tempfile.TemporaryDirectory() as cache:  # or the second run would predict nothing
            environment = os.environ | {"XDG_CACHE_HOME": cache}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        peak = json.loads(done.stdout)["peak_bytes"] / 1e9
        resident = after.ru_maxrss / 1024
        held = verdict(seconds <= allowed_s and resident <= 600)
        lines.append((name, f"{seconds:.1f}", f"{resident:.0f}", f"{peak:.1f}", held))
    table(("prediction", "cpu s, imports too", "RSS MiB", "peak GB", ""), *lines)


if __name__ == "__main__":
    main()
