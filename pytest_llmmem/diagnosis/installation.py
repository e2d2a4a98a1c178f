"""Missing packages, and features that the installed versions lack."""

from typing import Final

from pytest_llmmem.diagnosis.rule import Rule, either, raised

RULES: Final = (
    Rule(
        id="accelerate-missing",
        # 4.x names both packages where either is missing: that one is bitsandbytes-missing
        when=either(
            raised("ImportError ValueError", r"(?i)requires `?accelerate(?!.*bitsandbytes)|^accelerate is required"),
            raised("ModuleNotFoundError", r"No module named 'accelerate'"),
        ),
        happened="accelerate is needed here, and is not installed or too old.",
        why="transformers leaves device_map, bitsandbytes and (before 4.51) low_cpu_mem_usage to accelerate.",
        next=(
            "Install it: pip install -U accelerate.",
            "Or load without device_map, low_cpu_mem_usage and quantization_config.",
        ),
    ),
    Rule(
        id="bitsandbytes-missing",
        when=either(
            raised("ImportError", r"requires bitsandbytes|latest version of bitsandbytes"),
            raised("PackageNotFoundError", r"metadata was found for bitsandbytes"),
            raised("ModuleNotFoundError", r"No module named 'bitsandbytes'"),
        ),
        happened="bitsandbytes is needed here, and is not installed or too old.",
        why="Loading in 8 or 4 bits is the work of bitsandbytes, together with accelerate.",
        next=(
            "Install both: pip install -U bitsandbytes accelerate.",
            "Or load without load_in_8bit, load_in_4bit and BitsAndBytesConfig.",
        ),
    ),
    Rule(
        id="quantizer-missing",
        when=raised(
            "ImportError ValueError", r"(?:quantized model|TorchAoConfig) requires .*`pip install (?P<package>[\w-]+)`"
        ),
        happened="The load needs {package}, which is not installed.",
        why="The quantization_config, of the call or in config.json, names a library that does the work.",
        next=("Install it: pip install {package}.", "Or load without that quantization_config."),
    ),
    Rule(
        id="load-in-bits-removed",
        when=raised("TypeError", r"unexpected keyword argument 'load_in_(?P<bits>[48])bit'", inside="from_pretrained"),
        happened="from_pretrained no longer knows load_in_{bits}bit.",
        why="transformers 5 has taken it out, and hands what it does not know to the model's own __init__.",
        next=(
            "Pass quantization_config=BitsAndBytesConfig(load_in_{bits}bit=True).",
            "Or name a strategy: --llm-load=int8 or --llm-load=nf4.",
        ),
    ),
    Rule(
        id="cpu-offload-argument",
        when=raised(
            "TypeError", r"unexpected keyword argument 'llm_int8_enable_fp32_cpu_offload'", inside="from_pretrained"
        ),
        happened="from_pretrained does not know llm_int8_enable_fp32_cpu_offload.",
        why="It is a field of BitsAndBytesConfig.",
        next=(
            "Pass quantization_config=BitsAndBytesConfig(load_in_8bit=True, llm_int8_enable_fp32_cpu_offload=True).",
        ),
    ),
    Rule(
        id="quantized-off-gpu",
        when=raised("ValueError", r"Some modules are dispatched on the CPU or the disk"),
        happened="The plan puts modules of an 8- or 4-bit model into host memory or on disk.",
        why="They would stay in 32 bits there, and that must be allowed.",
        next=(
            "Make room for all of it where it is quantized: a larger max_memory, fewer other processes on the GPU.",
            "Or allow it: BitsAndBytesConfig(..., llm_int8_enable_fp32_cpu_offload=True), with a device_map of your own.",
        ),
    ),
    Rule(
        id="torch-without-cuda",
        when=either(
            raised("AssertionError", r"Torch not compiled with CUDA enabled"),
            raised(
                "RuntimeError",
                r"Cannot access accelerator device when none is available|torch\.cuda\.is_available\(\) is False"
                r"|Found no NVIDIA driver|No CUDA GPUs are available",
            ),
        ),
        happened="A GPU was asked for, and torch has none here.",
        why="The installed torch is built for CPUs (torch.version.cuda is None), or it finds no driver or no device.",
        next=(
            "Load on what is there: device_map='cpu' or 'auto', map_location='cpu' for torch.load.",
            "Or install a CUDA build of torch on a machine with a GPU.",
        ),
    ),
    Rule(
        id="remote-code",
        when=raised("ValueError", r"contains custom code which must be executed|requires you to execute the \w+ file"),
        happened="The model brings its own Python code, which transformers does not run unasked.",
        why="auto_map in its config.json names classes that are in the repository and not in transformers.",
        next=(
            "Read that code, then allow it: --llm-trust-remote-code.",
            "In a call of your own: from_pretrained(..., trust_remote_code=True, revision=COMMIT).",
        ),
    ),
    Rule(
        id="unknown-architecture",
        when=raised("ValueError", r"model type `(?P<type>[^`]+)` but Transformers does not recognize"),
        happened="The installed transformers has no architecture {type}.",
        why="model_type in config.json names it: it is newer than this transformers, or the model brings its own code.",
        next=(
            "Upgrade: pip install -U transformers.",
            "Or, if config.json has an auto_map: --llm-trust-remote-code.",
        ),
    ),
)
