"""Run the readers of checkpoints on random files: ``python bench/fuzz_headers.py --seconds 3600``.

For any file, the result must be a value or a ``CheckpointError`` of one printable line, and a safetensors header that is
accepted is one that the safetensors library accepts too, with the same tensors (where that is installed).

With ``atheris`` installed, which is for Python 3.11 to 3.13, coverage guides what is tried; without it whole files are changed
by chance. What breaks the promise is written to ``--keep`` and ends the run with status 1. Each becomes a test.
"""

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

try:
    import atheris
except ImportError:
    atheris = None

try:
    import safetensors
except ImportError:
    safetensors: ModuleType | None = None

with atheris.instrument_imports(include=["pytest_llmmem"]) if atheris else contextlib.nullcontext():
    from pytest_llmmem.core.errors import CheckpointError
    from pytest_llmmem.models.checkpoints import safetensors_file, torch_file
    from pytest_llmmem.models.checkpoints.findings import findings
    from pytest_llmmem.models.checkpoints.reader import read_checkpoint
    from pytest_llmmem.models.checkpoints.stored_zip import StoredZipWriter
    from pytest_llmmem.models.checkpoints.tensors import BY_CODE, tensor
    from pytest_llmmem.models.estimates.estimate import estimates

TENSORS: Final = (
    tensor("model.layers.0.mlp.experts.0.up.weight", "float32", (2, 2)),
    tensor("model.layers.0.mlp.experts.1.up.weight", "float32", (2, 2)),
    tensor("model.embed.weight", "float16", (3,)),
    tensor("scalar", "int64", ()),
)
SIZE: Final = sum(each.nbytes for each in TENSORS)
LONG: Final = 2000
"""Characters that no sentence has."""

WORDS: Final = (
    '"dtype":', '"shape":', '"data_offsets":', '"__metadata__":', '"weight_map":', '"metadata":', '"total_size":', '"F32"',
    '"architectures":', '"model_type":', '"auto_map":', '"torch_dtype":', "Infinity", "NaN", "-0", "1e999", "true", "null",
    "18446744073709551616", '"\\ud800"', '"\\u001b["', "model.safetensors", "../", "[[[[", "]]]]", "ctorch\n", "FloatStorage\n",
    "ctorch._utils\n_rebuild_tensor_v2\n", "ccollections\nOrderedDict\n",
)  # fmt: skip


def read_safetensors(folder: Path, data: bytes) -> None:
    """A whole file."""
    path = folder / "model.safetensors"
    path.write_bytes(data)
    header = safetensors_file.read_header(path)
    # the one difference: JSON's -0 is a whole number in Python, and none in Rust
    if safetensors is not None and header.file_bytes == header.found_bytes and b"-0" not in data:
        theirs = {
            (name, BY_CODE[each["dtype"]].name, tuple(each["shape"])) for name, each in safetensors.deserialize(data)
        }
        assert theirs == {(each.name, each.dtype, each.shape) for each in header.tensors}


def read_header(folder: Path, data: bytes) -> None:
    """The text of a header, before bytes of 0."""
    read_safetensors(folder, len(data).to_bytes(8, "little") + data + bytes(SIZE))


def read_bin(folder: Path, data: bytes) -> None:
    """A whole file."""
    path = folder / "pytorch_model.bin"
    path.write_bytes(data)
    torch_file.read_header(path)


def read_pickle(folder: Path, data: bytes) -> None:
    """The pickle in a file that is whole."""
    path = folder / "pytorch_model.bin"
    with path.open("wb") as file:
        archive = StoredZipWriter(file)
        archive.add("archive/data.pkl", data)
        archive.close()
    torch_file.read_header(path)


def read_index(folder: Path, data: bytes) -> None:
    """An index beside a shard."""
    shutil.copyfile(folder / "whole", folder / "model-1-of-2.safetensors")
    (folder / "model.safetensors.index.json").write_bytes(data)
    read_all(folder)


def read_config(folder: Path, data: bytes) -> None:
    """A config beside weights."""
    shutil.copyfile(folder / "whole", folder / "model.safetensors")
    (folder / "config.json").write_bytes(data)
    read_all(folder)


def read_all(folder: Path) -> None:
    """Inspect and estimate, as ``llmmem inspect`` and ``estimate`` do."""
    checkpoint = read_checkpoint(folder)
    assert all(finding.text.isprintable() and len(finding.text) < LONG for finding in findings(checkpoint))
    estimates(checkpoint, ("default", "naive", "nf4", "offload"), transformers="5.23")


READERS: Final[tuple[Callable[[Path, bytes], None], ...]] = (
    read_safetensors, read_header, read_bin, read_pickle, read_index, read_config,
)  # fmt: skip


def feed(folder: Path, reader: Callable[[Path, bytes], None], data: bytes) -> None:
    """Raise an error if a result is not allowed."""
    try:
        reader(folder, data)
    except CheckpointError as error:
        if not str(error).isprintable() or len(str(error)) > LONG:
            raise
    finally:
        for path in folder.iterdir():
            if path.name != "whole":
                path.unlink()


def seeds(folder: Path) -> tuple[bytes, ...]:
    """A whole input for each reader."""
    safetensors_file.write_holes(folder / "whole", TENSORS)
    torch_file.write_holes(folder / "bin", TENSORS)
    whole, bin_ = (folder / "whole").read_bytes(), (folder / "bin").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    weight_map = {each.name: "model-1-of-2.safetensors" for each in TENSORS} | {"other": "../model-2-of-2.safetensors"}
    index = {"metadata": {"total_size": SIZE}, "weight_map": weight_map}
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16", "vocab_size": 2}
    pickled = torch_file.pickled(TENSORS)
    return whole, whole[8 : 8 + length], bin_, pickled, json.dumps(index).encode(), json.dumps(config).encode()


def change(data: bytes, draw: random.Random) -> bytes:
    """A few changes of one file."""
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        at, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        end = min(end, at + draw.choice((1, 1, 4, 40)))
        new = draw.choice((b"", draw.randbytes(1), draw.randbytes(8), draw.choice(WORDS).encode(), data[at:end] * 2))
        data = data[:at] + new + data[end:]
    return data


def run_by_chance(folder: Path, keep: Path, *, seconds: float, seed: int) -> int:
    """Without coverage. Returns the exit status."""
    draw = random.Random(seed)
    whole = seeds(folder)
    started = time.monotonic()
    tried, slowest_s = 0, 0.0
    while time.monotonic() - started < seconds:
        number = draw.randrange(len(READERS))
        data = change(whole[number], draw)
        before = time.process_time()
        try:
            feed(folder, READERS[number], data)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is a finding
            (keep / f"crash-{tried}").write_bytes(bytes([number]) + data)
            print(f"{READERS[number].__name__} raised {error!r}: see {keep / f'crash-{tried}'}")
            return 1
        tried, slowest_s = tried + 1, max(slowest_s, time.process_time() - before)
    print(
        f"{tried:,} files in {seconds:.0f} s without coverage, seed {seed}: no finding, the slowest took {slowest_s:.3f} s"
    )
    return 0


def run_by_coverage(folder: Path, keep: Path, *, seconds: float, seed: int) -> None:
    """Ends the process."""
    corpus = keep / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, data in enumerate(seeds(folder)):
        (corpus / f"seed-{number}").write_bytes(bytes([number]) + data)
    words = keep / "words"
    words.write_text("\n".join('"' + "".join(f"\\x{each:02x}" for each in word.encode()) + '"' for word in WORDS))
    options = [f"-max_total_time={seconds:.0f}", f"-seed={seed}", f"-artifact_prefix={keep}/", f"-dict={words}"]
    limits = ["-timeout=20", "-rss_limit_mb=600", "-max_len=20000", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, *limits, str(corpus)], partial(feed_any, folder))
    atheris.Fuzz()


def feed_any(folder: Path, data: bytes) -> None:
    """The first byte chooses the reader."""
    if data:
        feed(folder, READERS[data[0] % len(READERS)], data[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--keep", type=Path, default=Path(tempfile.gettempdir(), "llmmem-fuzz"), help="a folder for findings"
    )
    parser.add_argument("inputs", nargs="*", type=Path, help="findings to try again, and nothing else")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.inputs:
            seeds(folder)
            for path in arguments.inputs:
                feed_any(folder, path.read_bytes())
            return
        arguments.keep.mkdir(parents=True, exist_ok=True)
        if atheris is None:
            sys.exit(run_by_chance(folder, arguments.keep, seconds=arguments.seconds, seed=arguments.seed))
        run_by_coverage(folder, arguments.keep, seconds=arguments.seconds, seed=arguments.seed)


if __name__ == "__main__":
    main()
