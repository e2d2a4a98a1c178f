"""What the tests of failures share: tiny checkpoints, children that die, and what is said of an exception."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_llmmem.core.endings import Ending, Evidence, exit_from_returncode, judge_ending
from pytest_llmmem.core.stacks import Frame, parse_stack
from pytest_llmmem.diagnosis import CheckpointFacts, Diagnosis, Facts, diagnose, frames_of
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.models.sources.source import parse_source, resolve
from tests.conftest import needs

MARKS = [
    needs("torch", "transformers", "accelerate"),
    # what the libraries deprecate is no failure of ours
    pytest.mark.filterwarnings("ignore"),
]
RAISED = Ending(kind="raised")


def synthetic(base: Path, name: str) -> Path:
    return resolve(parse_source(f"synthetic:{name}", base=base), cache=base / "synthetic")


def second_file(folder: Path) -> Path:
    """A shard that is neither the first nor the last, or the only file of weights."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    return files[min(1, len(files) - 1)]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def facts_of(checkpoint: Checkpoint) -> CheckpointFacts:
    return CheckpointFacts(
        weights_bytes=checkpoint.weights_bytes,
        dtype=checkpoint.dtype,
        duplicates=checkpoint.duplicates,
        truncated=checkpoint.truncated,
    )


def diagnosed(act: Callable[[], object], **facts: Any) -> Diagnosis | None:
    """What is said of the exception that an act ends with."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- whatever the library raises is what is looked at
        act()
    error = caught.value
    kind = type(error)
    return diagnose(
        Facts(
            ending=RAISED,
            error_type=f"{kind.__module__}.{kind.__qualname__}",
            error_text=str(error),
            stack=frames_of(error),
            **facts,
        )
    )


def id_of(act: Callable[[], object], **facts: Any) -> str | None:
    found = diagnosed(act, **facts)
    return found.id if found else None


def load(folder: Path, **options: Any) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options)


def empty_model(folder: Path) -> Any:
    import accelerate
    import transformers

    with accelerate.init_empty_weights():
        return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))


def filled_model(folder: Path) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(folder))


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@dataclasses.dataclass(frozen=True)
class Ended:
    """A child that ended as it did."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def symptoms(self) -> list[Facts]:
        """Of each exception that it has caught."""
        return [
            Facts(
                ending=RAISED,
                error_type=each["type"],
                error_text=each["text"],
                stack=tuple(Frame(*frame) for frame in each["stack"]),
            )
            for each in map(json.loads, self.stdout.splitlines())
        ]

    @property
    def facts(self) -> Facts:
        """Of its death."""
        exit_ = exit_from_returncode(self.returncode)
        ending = judge_ending(exit_, finished=False, phase="call", stopped=None, evidence=Evidence())
        return Facts(ending=ending, stack=parse_stack(self.stderr).frames)


PRELUDE = """
import json, sys, faulthandler
faulthandler.enable()

def attempt(act):
    try:
        act()
    except BaseException as error:
        kind, frames, trace = type(error), [], error.__traceback__
        while trace is not None:
            frames.insert(0, (trace.tb_frame.f_code.co_filename, str(trace.tb_lineno), trace.tb_frame.f_code.co_name))
            trace = trace.tb_next
        print(json.dumps({"type": f"{kind.__module__}.{kind.__qualname__}", "text": str(error), "stack": frames}))

def held(name):
    import re
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
"""


def child(program: str, *arguments: object, path: Path | None = None) -> Ended:
    """Run a program in an interpreter of its own, which finds packages in ``path`` alone if that is given."""
    alone = ["-S"] if path else []
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    ended = subprocess.run(
        [sys.executable, *alone, "-c", PRELUDE + program, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def packages_without(base: Path, *names: str) -> Path:
    """A folder with all packages that are installed here, as links, but these."""
    links = base / "packages"
    links.mkdir()
    installed = (Path(each) for each in sys.path if each.endswith(("site-packages", "dist-packages")))
    for package in (each for folder in installed for each in folder.iterdir()):
        if not package.name.startswith(names) and not (links / package.name).exists():
            (links / package.name).symlink_to(package)
    return links


def device_map() -> dict[str, str]:
    layers = {f"model.layers.{layer}": "disk" if layer > 1 else "cpu" for layer in range(4)}
    return {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu", **layers}


def transformers_major() -> int:
    import transformers

    return int(transformers.__version__.partition(".")[0])
