"""Loads that completed or needed too much memory, and did not do the requested work: recognized without an error."""

from typing import Final

from pytest_llmmem.core.limits import DTYPE_BITS
from pytest_llmmem.core.sizes import UNITS, format_beside, format_size
from pytest_llmmem.diagnosis.facts import CheckpointFacts, Facts, LoadFacts
from pytest_llmmem.diagnosis.rule import Rule, Words

_OURS: Final = {None, "AssertionError", "BudgetExceeded"}
"""Exceptions of tests about memory. Any other exception has a cause of its own."""
_SAVED: Final = 0.25
"""Share of what a quantization should save: a load that saved less left most of the model as it was."""
_COPY: Final = 0.9
"""Share of the checkpoint: this much memory beside the loaded model is a second copy."""
_UNEXPLAINED: Final = 0.25
"""A share of the checkpoint. If less than this is left of the peak, without the model and without what the C library kept of
freed memory, then nothing shows that a copy was in use."""
_STATE_DICT_READERS: Final = {
    "torch.load": "torch/serialization.py load",
    "load_state_dict": "torch/nn/modules/module.py load_state_dict",
}
_TELLING_BYTES: Final = 200 * UNITS["MB"]
"""A smaller model is hidden by what its libraries take."""


def _told(facts: Facts) -> bool:
    """Whether the test ended for a reason that memory can explain."""
    return facts.error_name in _OURS and facts.ending.kind in {
        "completed",
        "raised",
        "over_budget",
        "out_of_memory",
    }


def _about(facts: Facts) -> tuple[CheckpointFacts, LoadFacts] | None:
    if not _told(facts) or facts.checkpoint is None or facts.load is None:
        return None
    return facts.checkpoint, facts.load


def _state_dict_copied(facts: Facts) -> Words | None:
    """A budget that was crossed within ``torch.load`` or ``load_state_dict`` of the test's own."""
    if facts.ending.kind != "over_budget" or facts.load is not None:
        return None
    reader = next((name for name, where in _STATE_DICT_READERS.items() if facts.was_in(where)), None)
    return {"reader": reader} if reader else None


def _plan_exceeds_container(facts: Facts) -> Words | None:
    about, container = _about(facts), facts.container_available_bytes
    if about is None or container is None:
        return None
    checkpoint, load = about
    if load.planned_host_bytes is None or load.planned_host_bytes <= container:
        return None
    if facts.ending.kind != "out_of_memory" and checkpoint.weights_bytes <= container:
        return None
    there, planned, _ = format_beside(container, load.planned_host_bytes)
    return {
        "planned": planned,
        "container": there,
        "cpu": f"{container // UNITS['MB']}MB",
    }


def _dtype_wider(facts: Facts) -> Words | None:
    about = _about(facts)
    if about is None:
        return None
    checkpoint, load = about
    asked = load.asked_dtype is not None and load.asked_dtype == load.dtype
    passed = facts.ending.kind == "completed" and facts.error_type is None
    stored, loaded = DTYPE_BITS.get(checkpoint.dtype or ""), DTYPE_BITS.get(load.dtype or "")
    if stored is None or loaded is None or loaded <= stored or (asked and passed):
        return None
    if load.bits_per_parameter is not None and load.bits_per_parameter < (stored + loaded) / 2:
        return (
            None  # a quantized checkpoint: its floating-point weights, whose dtype is the model's, are the lesser part
        )
    return {
        "dtype": str(load.dtype),
        "stored": str(checkpoint.dtype),
        "times": f"{loaded / stored:g}",
        "weights": format_size(checkpoint.weights_bytes),
    }


def _quantization_without_effect(facts: Facts) -> Words | None:
    about = _about(facts)
    if about is None:
        return None
    checkpoint, load = about
    stored = DTYPE_BITS.get(checkpoint.dtype or "")
    if stored is None or load.asked_bits is None or load.bits_per_parameter is None or load.asked_bits >= stored:
        return None
    if stored - load.bits_per_parameter > _SAVED * (stored - load.asked_bits):
        return None
    fraction = load.quantized_fraction or 0.0
    others = (load.bits_per_parameter - fraction * load.asked_bits) / (1 - fraction) if fraction < 1 else 0.0
    return {
        "asked": str(load.asked_bits),
        "bits": f"{load.bits_per_parameter:.1f}",
        "bound": f"{(stored + load.asked_bits) / 2:g}",
        "others": f"{others:.0f}",
        "quantized": f"{fraction:.0%}",
    }


def _second_copy(facts: Facts) -> Words | None:
    about = _about(facts)
    if about is None:
        return None
    checkpoint, load = about
    if load.peak_bytes is None or load.nbytes is None or load.kept_bytes is None:
        return None
    beside_bytes = load.peak_bytes - load.nbytes
    if checkpoint.weights_bytes < _TELLING_BYTES or beside_bytes < _COPY * checkpoint.weights_bytes:
        return None
    if beside_bytes - load.kept_bytes < _UNEXPLAINED * checkpoint.weights_bytes:
        return None
    return {
        "peak": format_size(load.peak_bytes),
        "nbytes": format_size(load.nbytes),
        "weights": format_size(checkpoint.weights_bytes),
    }


def _fetched_twice(facts: Facts) -> Words | None:
    checkpoint = facts.checkpoint
    if not _told(facts) or facts.ending.died or checkpoint is None or not checkpoint.duplicates:
        return None
    return {"duplicates": ", ".join(checkpoint.duplicates)}


RULES: Final = (
    Rule(
        id="plan-exceeds-container",
        when=_plan_exceeds_container,
        happened="The plan could use {planned} of host memory, and the container had {container} left before the test.",
        why="accelerate plans with max_memory, or else with what psutil calls free: the machine's memory, not the container's.",
        next=(
            "Pass it: max_memory={{'cpu': '{cpu}'}}, less what the rest of the process needs.",
            "Or let --llm-load=auto do it, which plans with what the container has left.",
        ),
    ),
    Rule(
        id="dtype-wider",
        when=_dtype_wider,
        happened="The model is {dtype}, and its checkpoint is {stored}: {times} times the checkpoint's {weights}.",
        why="transformers 4 loads as float32 unless told otherwise; .float() and a dtype of your own do the same.",
        next=("Pass dtype='auto' (torch_dtype='auto' before transformers 4.56), or the checkpoint's: {stored}.",),
    ),
    Rule(
        id="quantization-without-effect",
        when=_quantization_without_effect,
        happened="{asked} bits per parameter were asked for, and the model takes {bits}.",
        why="{quantized} of the parameters are quantized, the others take {others} bits each. Embeddings are not quantized, "
        "nor, since transformers 5, a mixture's experts; some models keep layers in float32.",
        next=(
            "For a mixture of experts: load a checkpoint that was quantized beforehand, or pin transformers 4.57.",
            "To keep it from coming back: assert loaded_model.bits_per_parameter < {bound}.",
        ),
    ),
    Rule(
        id="state-dict-copied",
        when=_state_dict_copied,
        happened="The budget was crossed in {reader}: a state dict beside the model that is filled from it.",
        why="torch.load reads all tensors into memory, and load_state_dict copies them into a model of its own: two copies.",
        next=(
            "Map the file: torch.load(path, mmap=True).",
            "Build the model without memory (with torch.device('meta')), then load_state_dict(..., assign=True).",
        ),
    ),
    Rule(
        id="second-copy",
        when=_second_copy,
        happened="The load needed {peak} for a model of {nbytes}: a second copy of the weights was alive beside it.",
        why="That is what it takes to hold a whole state dict ({weights}) while the model is filled from it.",
        next=(
            "Let from_pretrained load: it maps the shards, or holds one at a time.",
            "In code of your own: an empty model and load_state_dict(..., assign=True), or --llm-load=sharded.",
        ),
    ),
    Rule(
        id="fetched-twice",
        when=_fetched_twice,
        happened="The weights are there in two formats. No load reads {duplicates}.",
        why="transformers takes safetensors where both are there, and the others cost their download and their disk.",
        next=(
            "Delete them.",
            "Fetch one format: --llm-model=ORG/NAME does, and so does snapshot_download(..., ignore_patterns=['*.bin']).",
        ),
    ),
)
