"""Measure the processor time and memory that `llmmem inspect` and `estimate` need for the worst checkpoints.

    python bench/hostile.py

Each is as large, as deep or as many as the bounds in ``pytest_llmmem/models/checkpoints/bounds.py`` allow, or out of them; ordinary ones
stand beside. The goal is 2 s and 300 MB, the start of the interpreter included.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from _run import table, verdict

sys.path.insert(0, str(Path(__file__).parents[1]))

from pytest_llmmem.models.checkpoints.safetensors_file import write_holes
from pytest_llmmem.models.checkpoints.tensors import tensor
from tests.models.hostile import WHOLE, config, header, index, pickled
from tests.models.hostile_kinds import HEAVY, LIGHT

GOAL_S, GOAL_MB = 2, 300

_PROGRAM = """
import re, resource, sys
from pytest_llmmem.cli import main
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    mark = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]
    print(f"used {used.ru_utime + used.ru_stime} {mark}", file=sys.stderr)
"""


def mixture(folder: Path, *, tensors: int, shards: int) -> None:
    """A mixture of experts of so many tensors."""
    config(folder)
    names = (
        f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"
        for layer in range(10**6)
        for expert in range(256)
        for part in ("gate", "up", "down")
    )
    parts = [[tensor(next(names), "bfloat16", (64, 64)) for _ in range(tensors // shards)] for _ in range(shards)]
    weight_map = {}
    for number, part in enumerate(parts):
        name = f"model-{number:05}-of-{shards:05}.safetensors"
        write_holes(folder / name, part)
        weight_map |= {each.name: name for each in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}, indent=2))


def different_kinds(folder: Path) -> None:
    """No two tensors of the same shape, and each the expert of a layer of its own."""
    config(folder)
    tensors = [tensor(f"layers.{n}.experts.0.weight", "float32", (n, 1)) for n in range(1, 60_000)]
    write_holes(folder / "model.safetensors", tensors)


def keys(folder: Path) -> None:
    """As many as may be, in a text of four bytes a character."""
    pairs = ",".join(f'"{number:05x}":0' for number in range(490_000))
    text = f'{{"\U0001f600":{{{pairs}}}}}'
    header(folder, text + " " * (19_900_000 - len(text.encode())), data=0)


def operations(folder: Path) -> None:
    """A pickle of as many as may be, each of which leaves memory behind."""
    pickled(folder, b"\x80\x02}" + b"N\x85\x94" * 999_990 + b".")


def texts(folder: Path) -> None:
    """A pickle of as many bytes as may be."""
    pickled(folder, b"\x80\x02}" + b"X\x05\x00\x00\x00abcde" * 1_990_000 + b".")


def directories(folder: Path) -> None:
    """As many zips as may be, each with its pickle behind other entries."""
    config(folder)
    first = folder / "pytorch_model-0.bin"
    with zipfile.ZipFile(first, "w") as archive:
        for number in range(200):
            archive.writestr(str(number), b"")
        archive.writestr("x/data.pkl", b"\x80\x02}.")
    for number in range(1, 2000):
        os.link(first, folder / f"pytorch_model-{number}.bin")
    weight_map = {str(number): f"pytorch_model-{number}.bin" for number in range(2000)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))


def missing(folder: Path) -> None:
    """As many names as may be, of as many shards, none of which is there."""
    index(folder, json.dumps({"weight_map": {str(number): f"model-{number % 1999}.x" for number in range(330_000)}}))


def name_of(text: str) -> Callable[[Path], None]:
    """A tensor with a name of 18 MB, as a pattern may dislike it."""
    return lambda folder: header(folder, WHOLE.replace("a", f"{text * (18_000_000 // len(text))}.weight", 1))


WORST = {
    "291 tensors": partial(mixture, tensors=291, shards=3),
    "45,395 tensors, 163 shards": partial(mixture, tensors=45_395, shards=163),
    "140,000 tensors, 61 shards": partial(mixture, tensors=140_000, shards=61),
    "180,000 tensors, 2,000 shards": partial(mixture, tensors=180_000, shards=2_000),
    "59,999 kinds of tensors": different_kinds,
    "490,000 keys": keys,
    "3,000,000 operations": operations,
    "20 MB of pickled texts": texts,
    "2,000 zips": directories,
    "1,999 missing shards": missing,
    "a name of underscores": name_of("_"),
    "a name of numbers": name_of(".1"),
    "a name of experts": name_of(".experts.1"),
    **{
        each.name: each.make
        for each in (*HEAVY, *LIGHT)
        if each.name in {"million tensors", "500,000 shards", "bomb", "deep key"}
    },
}


def measure(command: str, folder: Path) -> tuple[float, float]:
    """Processor seconds, and megabytes at the mark."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, command, folder, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode in {0, 1}, done.stderr
    used = re.search(r"^used ([\d.]+) (\d+)$", done.stderr, re.MULTILINE)
    assert used is not None, done.stderr
    return float(used[1]), int(used[2]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="the lowest of so many counts")
    arguments = parser.parse_args()
    rows = []
    for name, make in WORST.items():
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            found = [
                [min(each) for each in zip(*(measure(command, Path(folder)) for _ in range(arguments.rounds)))]
                for command in ("inspect", "estimate")
            ]
        seconds, megabytes = (max(each) for each in zip(*found))
        met = verdict(seconds <= GOAL_S and megabytes <= GOAL_MB)
        rows.append([name, *(f"{value:.{digits}f}" for each in found for value, digits in zip(each, (2, 0))), met])
    table(["", "inspect s", "MB", "estimate s", "MB", f"<= {GOAL_S} s, {GOAL_MB} MB"], *rows)


if __name__ == "__main__":
    main()
