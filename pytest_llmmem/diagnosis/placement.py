"""Plans and recipes that do not work: ``device_map``, offloading, filling an empty model."""

from typing import Final

from pytest_llmmem.diagnosis.facts import Facts
from pytest_llmmem.diagnosis.rule import Rule, Words, either, raised

_ALL: Final = 0.99
"""Share of the checkpoint's weights."""


def _plan_without_memory(facts: Facts) -> Words | None:
    """A plan that left no weight in memory, in a load that completed."""
    checkpoint, load = facts.checkpoint, facts.load
    if facts.ending.died or checkpoint is None or load is None or load.planned_disk_bytes is None:
        return None
    return {} if load.planned_disk_bytes >= _ALL * checkpoint.weights_bytes > 0 else None


RULES: Final = (
    Rule(
        id="whole-model-on-disk",
        when=either(
            raised("ValueError", r"trying to offload the whole model to the disk"),
            raised("SafetensorError", r"device disk is invalid"),
            _plan_without_memory,
        ),
        happened="The plan puts the whole model on disk.",
        why="Every module was given to 'disk': by the device_map itself, or because max_memory left no room for any. "
        "It allows only the devices that it names: {{'disk': 0}} allows no other one.",
        next=(
            "Give the plan memory: max_memory={{'cpu': '4GB'}}, or no max_memory at all.",
            "If it is meant: accelerate.disk_offload(model, offload_dir=...), or from_pretrained of transformers 5.",
        ),
    ),
    Rule(
        id="offload-folder-missing",
        when=raised("ValueError", r"had weights offloaded to the disk|We need an `offload_dir` to dispatch"),
        happened="The plan puts weights on disk, and no folder was named for them.",
        why="What goes to disk is written there anew, unless it can be read from the safetensors file that it lies in.",
        next=(
            "Name one: from_pretrained(..., offload_folder=...), dispatch_model(..., offload_dir=...).",
            "Or convert the checkpoint to safetensors: from_pretrained then reads most models where they lie.",
        ),
    ),
    Rule(
        id="offload-folder-empty",
        when=raised(
            "FileNotFoundError",
            r"No such file or directory: '(?P<folder>[^']*)[/\\]index\.json'",
            inside="accelerate/utils/offload.py",
        ),
        happened="dispatch_model found no offloaded weights in {folder}.",
        why="It wrote none: a device_map of {{'': 'disk'}} names no module, and the index of what was written is not there.",
        next=(
            "Name the modules: device_map={{'model': 'disk', 'lm_head': 'disk'}}.",
            "Or use accelerate.disk_offload(model, offload_dir=...), which is meant for this.",
        ),
    ),
    Rule(
        id="load-checkpoint-argument",
        when=raised(
            "TypeError", r"load_checkpoint_in_model\(\) got an unexpected keyword argument 'low_cpu_mem_usage'"
        ),
        happened="load_checkpoint_in_model does not know low_cpu_mem_usage.",
        why="It is an argument of from_pretrained. load_checkpoint_in_model holds one shard at a time anyway.",
        next=("Leave it out: load_checkpoint_in_model(model, folder, device_map={{'': 'cpu'}}).",),
    ),
    Rule(
        id="device-map-by-name",
        when=raised("AttributeError", r"'str' object has no attribute 'values'", inside="load_checkpoint_in_model"),
        happened="load_checkpoint_in_model was given a device_map by name.",
        why="It takes a dict of modules and devices; load_checkpoint_and_dispatch and from_pretrained know names such as 'auto'.",
        next=(
            "Use load_checkpoint_and_dispatch(model, folder, device_map='auto').",
            "Or work the dict out: device_map=accelerate.infer_auto_device_map(model).",
        ),
    ),
    Rule(
        id="no-device-map",
        when=raised("ValueError", r"Default process group has not been initialized", inside="load_checkpoint_in_model"),
        happened="load_checkpoint_in_model was called without a device_map, and asked for a process group.",
        why="Without one, accelerate hands the weights of an empty model to torch.distributed.",
        next=(
            "Pass one: load_checkpoint_in_model(model, folder, device_map={{'': 'cpu'}}).",
            "Or use from_pretrained, which starts from an empty model by itself.",
        ),
    ),
    Rule(
        id="from-config-path",
        when=either(
            raised("ValueError", r"Unrecognized configuration class <class 'str'>"),
            raised("AttributeError", r"'str' object has no attribute '_name_or_path'", inside="from_config"),
        ),
        happened="from_config was given a path.",
        why="It takes a configuration, and makes a model with random weights of it.",
        next=(
            "For the checkpoint's weights: from_pretrained(folder).",
            "For a model to fill: from_config(AutoConfig.from_pretrained(folder)).",
        ),
    ),
    Rule(
        id="meta-tensor",
        when=raised("NotImplementedError", r"Cannot copy out of meta tensor"),
        happened="A weight that has no numbers was to be moved.",
        why="It is on the meta device: it was never loaded, the checkpoint does not have it, or it is offloaded.",
        next=(
            "Load before moving: load_checkpoint_in_model(model, folder, device_map={{'': 'cpu'}}).",
            "Look for MISSING in the loading report: from_pretrained(..., output_loading_info=True).",
            "Leave .to() and .cuda() out where a device_map has placed the model.",
        ),
    ),
    Rule(
        id="offloaded-model-moved",
        when=raised("RuntimeError", r"can't move a model that has some modules offloaded"),
        happened="A model that is partly offloaded was to be moved as a whole.",
        why="accelerate moves its weights in and out as they are used; .to() and .cuda() would undo that.",
        next=(
            "Leave .to() and .cuda() out: inputs go to the device of the first module.",
            "Or load it whole: device_map={{'': 'cpu'}}.",
        ),
    ),
)
