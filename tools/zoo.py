"""Synthesize, compare, load and run a small model of every type of transformers, and print the table of docs/models.md.

    nice python tools/zoo.py --out zoo/
    python tools/zoo.py --out zoo/ --type bert --type whisper
    python tools/zoo.py --out zoo/ --table

Each type has a file in ``--out``, written once: a stopped run goes on where it was. A type is built, loaded and run in workers
of its own, which are ended after ``--timeout`` or at ``--max-ram``.
"""

import argparse
import gc
import json
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401 -- imported here, it is not imported in each worker
import pytest
import torch
import transformers
from tiny_models import MOST_PARAMETERS, small_configs
from transformers import BertModel, LlamaForCausalLM, T5Model, ViTModel, Wav2Vec2Model  # noqa: F401 -- as above
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from zoo_table import DTYPES, Outcome, in_words, table

from pytest_llmmem import measure
from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.measuring.blocks import memory_budget
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.checkpoints.reader import read_checkpoint
from pytest_llmmem.models.loading.load_model import load_model
from pytest_llmmem.models.loading.request import LoadRequest
from pytest_llmmem.models.loading.sample_inputs import sample_inputs
from pytest_llmmem.models.loading.strategies import STRATEGIES
from pytest_llmmem.models.sources import meta_interpreter, meta_layout
from pytest_llmmem.models.sources.meta_layout import find_model_class
from pytest_llmmem.models.sources.source import parse_source, resolve
from pytest_llmmem.suites import checks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder of the outcomes")
    parser.add_argument("--type", action="append", help="only this type; repeatable")
    parser.add_argument(
        "--load", action="append", help="estimate and measure this strategy; repeatable. Default: default"
    )
    parser.add_argument("--timeout", type=float, default=120, help="seconds for each worker of a type")
    parser.add_argument("--max-ram", default="5GB", help="of each worker of a type")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and run nothing")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.table:
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        get_checkpoint_conversion_mapping("")  # compiles the patterns of all types, which it keeps
        gc.freeze()
        for model_type in options.type or known_types():
            path = options.out / f"{model_type}.json"
            if not path.exists():
                outcome = outcome_of(
                    model_type, options.load or ["default"], timeout=options.timeout, max_ram=options.max_ram
                )
                path.write_text(json.dumps(asdict(outcome), indent=1))
                print(f"{model_type}: {in_words(outcome)}", flush=True)
    outcomes = [Outcome(**json.loads(path.read_text())) for path in sorted(options.out.glob("*.json"))]
    print("\n".join(table(outcomes)))


def known_types() -> list[str]:
    """Every type, in alphabetical order."""
    return sorted(transformers.CONFIG_MAPPING.keys())


def outcome_of(model_type: str, loads: Sequence[str], *, timeout: float, max_ram: str) -> Outcome:
    """The outcome of a worker, or how it ended without one."""
    with tempfile.TemporaryDirectory(prefix="zoo-") as name:
        try:
            run = measure(examine, model_type, loads, Path(name), timeout=timeout, max_ram=max_ram)
            run.check()
        except Exception as error:  # noqa: BLE001 -- the worker may have been stopped, or died
            return Outcome(type=model_type, reason=first_line(error))
        return run.value


def examine(model_type: str, loads: Sequence[str], folder: Path) -> Outcome:
    """Build, save, synthesize, compare, load and run."""
    torch.set_num_threads(1)
    # the program that an interpreter of its own would run: this process has the imports
    meta_interpreter.describe = meta_layout.describe
    architecture, parameters, reason = save_small(model_type, folder)
    if architecture is None:
        return Outcome(type=model_type, reason=reason)
    differences = {dtype: difference(folder, dtype) for dtype in DTYPES}
    forward, takes, beyond = "no checkpoint was made", [], {}
    if (folder / "made-float32").exists():
        forward, takes, beyond = load_and_run(folder / "made-float32", loads)
    return Outcome(
        type=model_type,
        architecture=architecture,
        parameters=parameters,
        differences=differences,
        forward=forward,
        takes=takes,
        beyond=beyond,
    )


def save_small(model_type: str, folder: Path) -> tuple[str | None, int | None, str | None]:
    """Save the smallest model of the type that runs, or else the smallest, in each dtype: its class, parameters, or why none."""
    chosen, reason = None, "no config can be made of the defaults"
    for config in small_configs(transformers.CONFIG_MAPPING[model_type]):
        try:
            config._attn_implementation = "eager"
            model_class = find_model_class(transformers, config)
            with torch.device("meta"):
                parameters = model_class._from_config(config).num_parameters()
            if parameters > MOST_PARAMETERS:
                reason = f"{parameters:,} parameters"
                continue
            model = model_class._from_config(config, dtype=torch.float32).eval()
        except Exception as error:  # noqa: BLE001 -- any class has its own
            reason = first_line(error)
            continue
        runs = does_run(model)
        if runs or chosen is None:
            chosen = model_class, config, parameters
        if runs:
            break
    if chosen is None:
        return None, None, reason
    model_class, config, parameters = chosen
    for dtype in DTYPES:
        model_class._from_config(config, dtype=getattr(torch, dtype)).save_pretrained(folder / dtype)
    return model_class.__name__, parameters, None


def does_run(model: Any) -> bool:
    """Whether it runs with sample inputs: some classes need a config that a small one is not."""
    try:
        with torch.inference_mode():
            model(**sample_inputs(model))
    except Exception:  # noqa: BLE001 -- any class has its own
        return False
    return True


def difference(folder: Path, dtype: str) -> str | None:
    """Synthesize the checkpoint whose config was saved; the first tensor that differs from the saved ones."""
    try:
        source = parse_source(f"synthetic:{folder / dtype / 'config.json'}?dtype={dtype}", base=folder)
        resolve(source, cache=folder / "cache").rename(folder / f"made-{dtype}")
    except LlmmemError as error:
        return first_line(error)
    made, saved = described(read_checkpoint(folder / f"made-{dtype}")), described(read_checkpoint(folder / dtype))
    shutil.rmtree(folder / dtype)
    return next(
        (f"{name}: {made.get(name)}, saved as {saved.get(name)}" for name, _ in made.items() ^ saved.items()), None
    )


def described(checkpoint: Checkpoint) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The dtype and shape of each tensor."""
    return {each.name: (each.dtype, each.shape) for each in checkpoint.tensors}


def load_and_run(folder: Path, loads: Sequence[str]) -> tuple[str, list[str], dict[str, int]]:
    """Load by each strategy, and run the first model: whether it ran, its inputs, and peaks beyond the estimates."""
    folder.with_name("offloaded").mkdir()
    checkpoint = read_checkpoint(folder)
    forward, takes, beyond = "", [], {}
    for strategy in loads:
        estimate = checkpoint.estimate(load=strategy).peak_bytes
        if estimate is None:
            continue
        request = LoadRequest(checkpoint=checkpoint, offload_folder=folder.with_name("offloaded"))
        try:
            loaded = load_model(request, STRATEGIES[strategy], lambda: memory_budget(None, name="load"))
        except Exception as error:  # noqa: BLE001 -- any class has its own
            forward = forward or f"failed: {strategy}: {first_line(error)}"
            continue
        if loaded.peak is not None:
            beyond[strategy] = loaded.peak.peak_bytes - estimate
        if not forward:
            forward, takes = forward_of(loaded)
        del loaded
        gc.collect()
    return forward, takes, beyond


def forward_of(loaded: Any) -> tuple[str, list[str]]:
    """The outcome of the check ``forward``, without its limit, and the names of the inputs."""
    takes: list[str] = []
    try:
        forward = checks.forward_of(loaded)
        takes = sorted(sample_inputs(loaded.model))
        forward()
    except pytest.skip.Exception as skipped:
        return f"skipped: {first_line(skipped)}", takes
    except Exception as error:  # noqa: BLE001 -- any class has its own
        return f"failed: {first_line(error)}", takes
    return "passed", takes


def first_line(error: BaseException) -> str:
    """Of a message, which may be long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


if __name__ == "__main__":
    main()
