"""The ``sweep.toml`` that ``llmmem sweep --init`` writes, for the models that it finds."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TEXT: Final = """\
# What to run: every model, with every load, in every environment. Each combination is a cell, one session of pytest.
# docs/fleets.md describes each key.

# As --llm-model takes them: folders, models of the Hub (org/name@revision), or synthetic:PRESET.
models = [
{models}]

# As --llm-load takes them.
loads = ["default"]

# Without 'tests', the ready-made checks are run, all of them or those named here.
# checks = ["load", "forward", "dtype"]
# tests = ["tests/test_loading.py"]
# arguments = ["-k", "not slow"]

# The budget of each test without a marker, and so what a cell claims. By default what 'llmmem estimate' predicts.
# max_ram = "1.1 * weights + 1GB"

# Memory that each cell claims, the interpreter included, in place of what is predicted.
# memory = "8GB"

# Seconds for each test, and for each cell.
timeout = 600
cell_timeout = 3600

# What a cell claims of its node beside memory.
# cpus = 1
# gpus = 0

# Processes that spread one model: above 1, with loads = ["tensor_parallel"] or ["fsdp"].
# ranks = 2

# An environment is an interpreter that has pytest-llmmem and what your models need: several versions of a library.
[env.current]
python = {python}
# variables = {{ HF_HOME = "/data/hf" }}
"""
_MOST: Final = 50


def example(folder: Path) -> str:
    """The text of the file, with the checkpoints below ``folder`` and in the Hub's cache, or else a small synthetic model."""
    models = [*_folders(folder), *_cached()][:_MOST] or ["synthetic:tiny-llama"]
    lines = "".join(f"  {_quoted(model)},\n" for model in models)
    return _TEXT.format(models=lines, python=_quoted(sys.executable))


def _folders(folder: Path) -> Iterator[str]:
    for config in sorted(folder.glob("*/config.json")) + sorted(folder.glob("*/*/config.json")):
        beside = config.parent
        if any(beside.glob("*.safetensors")) or any(beside.glob("pytorch_model*.bin")):
            yield f"./{beside.relative_to(folder).as_posix()}"


def _cached() -> Iterator[str]:
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return
    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError):
        return
    for repository in sorted(repositories, key=lambda each: each.repo_id):
        files = {file.file_name for revision in repository.revisions for file in revision.files}
        if repository.repo_type == "model" and any(name.endswith((".safetensors", ".bin")) for name in files):
            yield repository.repo_id


def _quoted(text: str) -> str:
    """Format as a TOML string: it has the same escapes as JSON."""
    return json.dumps(text, ensure_ascii=False)
