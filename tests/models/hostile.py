"""Folders with checkpoints that are hostile or broken: how they are made."""

import json
import os
import socket
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pytest_llmmem.models.checkpoints.sparse_files import create_sparse, end_with_hole
from pytest_llmmem.models.sources.presets import PRESETS
from tests.capabilities import is_there

CONFIG: Final = json.dumps(PRESETS["tiny-llama"].config)
ENTRY: Final = '{"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}'
WHOLE: Final = f'{{"a": {ENTRY}}}'

ESCAPE: Final = "\x1b]0;pwned\x07\x1b[2J"
"""A terminal sets its title, and clears itself."""


@dataclass(frozen=True)
class Hostile:
    """One kind."""

    name: str
    make: Callable[[Path], object]
    """Fills an empty folder."""

    says: str
    """A part of the answer, as a regular expression."""

    accepted: bool = False
    """Nothing is wrong with it."""

    on: Literal["anything", "posix", "linux"] = "anything"
    """Where such files can be."""

    @property
    def can_be_made(self) -> bool:
        return {"anything": True, "posix": is_there("named pipes"), "linux": is_there("/proc")}[self.on]


def config(folder: Path, text: str | bytes = CONFIG) -> None:
    (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))


def header(folder: Path, text: str | bytes, *, name: str = "model.safetensors", data: int = 8) -> None:
    """A safetensors file with that header, and so many bytes of holes."""
    config(folder)
    encoded = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    with create_sparse(folder / name) as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        end_with_hole(file, 8 + len(encoded) + data)


def shape(text: str) -> Callable[[Path], None]:
    """A safetensors file with one tensor of that shape."""
    return lambda folder: header(folder, WHOLE.replace("[2]", text))


def index(folder: Path, text: str | bytes) -> None:
    """A safetensors checkpoint of one whole shard, and that index."""
    header(folder, WHOLE, name="model-00001-of-00002.safetensors")
    encoded = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    (folder / "model.safetensors.index.json").write_bytes(encoded)


def shards(*names: object, **rest: Any) -> Callable[[Path], None]:
    """An index that names the whole shard, and these."""
    files = {"a": "model-00001-of-00002.safetensors"} | {f"b{number}": name for number, name in enumerate(names)}
    return lambda folder: index(folder, json.dumps({"weight_map": files, **rest}))


def pickled(folder: Path, content: bytes, *, method: int = zipfile.ZIP_STORED) -> None:
    """A .bin file with that pickle."""
    config(folder)
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", method) as archive:
        archive.writestr("archive/data.pkl", content)


def unpickled(content: bytes) -> Callable[[Path], None]:
    return lambda folder: pickled(folder, content)


def configured(text: str | bytes) -> Callable[[Path], None]:
    """Whole weights beside that config."""

    def make(folder: Path) -> None:
        header(folder, WHOLE)
        config(folder, text)

    return make


def linked(name: str, target: str) -> Callable[[Path], None]:
    """Whole weights in which one file is a link."""

    def make(folder: Path) -> None:
        header(folder, WHOLE)
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return make


def piped(name: str) -> Callable[[Path], None]:
    """A named pipe into which nobody writes."""

    def make(folder: Path) -> None:
        header(folder, WHOLE)
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


def listening(folder: Path) -> None:
    config(folder)
    # the path of a socket is short: it is bound from within
    before = os.getcwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("model.safetensors")
    finally:
        os.chdir(before)


def folder_for_weights(folder: Path) -> None:
    config(folder)
    (folder / "model.safetensors").mkdir()


def folder_beside_an_index(folder: Path) -> None:
    index(folder, json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    (folder / "model.safetensors").mkdir()


def sparse_header(length: int) -> Callable[[Path], None]:
    """A header of NUL bytes."""

    def make(folder: Path) -> None:
        config(folder)
        with create_sparse(folder / "model.safetensors") as file:
            file.write(length.to_bytes(8, "little"))
            end_with_hole(file, 8 + length)

    return make


def cut_header(folder: Path) -> None:
    config(folder)
    (folder / "model.safetensors").write_bytes((90_000_000).to_bytes(8, "little") + b"{")


def sparse_config(folder: Path) -> None:
    header(folder, WHOLE)
    text = (folder / "config.json").read_bytes()
    with create_sparse(folder / "config.json") as file:
        file.write(text)
        end_with_hole(file, 2**40)


def many_tensors(folder: Path) -> None:
    entries = (
        f'"{number}":{{"dtype":"U8","shape":[],"data_offsets":[{number},{number + 1}]}}' for number in range(10**6)
    )
    header(folder, "{" + ",".join(entries) + "}", data=10**6)


def many_headers(folder: Path) -> None:
    """Each within bounds, all together not."""
    weight_map = {}
    content = '{"__metadata__":{"a":"%s"}}' % ("x" * 15_000_000)
    for number in range(100):
        name = f"model-{number:05}-of-00100.safetensors"
        weight_map[str(number)] = name
        if number == 0:
            header(folder, content, name=name, data=0)
        else:
            os.link(folder / "model-00000-of-00100.safetensors", folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def many_shards(folder: Path) -> None:
    files = (f'"{number}":"model-{number:06}-of-500000.safetensors"' for number in range(500_000))
    index(folder, '{"weight_map":{' + ",".join(files) + "}}")


def bomb(folder: Path) -> None:
    """A thousandth of what it unzips to."""
    config(folder)
    with (
        zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w", force_zip64=True) as file,
    ):
        for _ in range(50):
            file.write(bytes(10**6))


def unending_comment(folder: Path) -> None:
    """The directory is said to be where no file reaches."""
    config(folder)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, 0xFFFFFFFE, 0xFFFFFFFE, 0)
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04" + end)


class RunsCommand:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch pwned",)


def surrogate_name(folder: Path) -> None:
    header(folder, WHOLE)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\x1b[31m.bin")).touch()
