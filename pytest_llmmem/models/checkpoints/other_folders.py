"""Weight folders without transformers' file names: their kind, and the files that hold the weights."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pytest_llmmem.core.errors import CheckpointError
from pytest_llmmem.core.printable import excerpt, some_of
from pytest_llmmem.models.checkpoints.bounds import MAX_READ_BYTES
from pytest_llmmem.models.checkpoints.foreign_json import parse, read_object
from pytest_llmmem.models.checkpoints.index_file import is_inside
from pytest_llmmem.models.checkpoints.regular_files import RegularFile
from pytest_llmmem.models.checkpoints.tensor_file import ACCEPTED, SUFFIXES

Kind = Literal["model", "file", "adapter", "diffusers", "sentence-transformers"]
"""``model`` is loaded by ``from_pretrained`` of transformers; ``file`` needs a loader of the user's own."""

_PIPELINE: Final = "model_index.json"
_MODULES: Final = "modules.json"
_COMPONENT_FILES: Final = tuple(
    re.compile(rf"(diffusion_pytorch_model|model|pytorch_model)(-\d+-of-\d+)?\.{suffix}")
    for suffix in ("safetensors", "bin")
)
"""Weight file names by format, the preferred format first."""
_OF_TRAININGS: Final = re.compile(r"(optimizer|scheduler|scaler|rng_state.*|training_args)\.(pt|pth|bin)")
"""Files that a training writes beside the weights."""
_PART: Final = re.compile(r"(?P<stem>.+?)[.-]\d+(-of-\d+)?(?P<suffix>\.\w+)")
"""One of several numbered files: ``consolidated.00.pth``, ``mine-00001-of-00003.gguf``."""
_SECOND_COPY: Final = re.compile(
    r"consolidated[.\d-]*\.(safetensors|pth)|(model|pytorch_model)\.(?!safetensors|bin)[\w-]+(-\d+-of-\d+)?\.(safetensors|bin)"
    r"|tf_model\.h5|flax_model\.msgpack|rust_model\.ot"
)
"""Copies of the weights: as Meta and Mistral publish them, as a variant, or for another framework."""


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a pipeline."""

    name: str
    files: tuple[Path, ...]


def second_copies(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Files beside a checkpoint that hold the same weights in another layout. ``original/`` is searched too."""
    found = [name for name in names if _SECOND_COPY.fullmatch(name) and (folder / name).is_file()]
    if "original" in names and (folder / "original").is_dir():
        inside = sorted(os.listdir(folder / "original"))
        found += [f"original/{name}" for name in inside if _SECOND_COPY.fullmatch(name)]
    return tuple(found)


def kind_of(folder: Path, names: Sequence[str]) -> Kind | None:
    """The kind of a folder with these files; ``None`` where its weights must be searched for by file name.

    A sentence-transformers folder with all its weights at the top level is also a model of transformers.
    """
    if _PIPELINE in names:
        return "diffusers"
    if _MODULES in names and "config_sentence_transformers.json" in names:
        places = [place for place in _modules(folder).values() if place and is_inside(place)]
        return "sentence-transformers" if any(_component_files(folder / place) for place in places) else None
    return None


def components(folder: Path, kind: Kind) -> tuple[Component, ...]:
    """The parts of a pipeline that have weights, in the pipeline's order. Raises ``CheckpointError`` when none has."""
    if kind == "diffusers":
        # "unet": ["diffusers", "UNet2DConditionModel"]; keys with an underscore belong to the pipeline itself
        parts = {name: name for name in read_object(folder / _PIPELINE).value if not name.startswith("_")}
    else:
        parts = _modules(folder)
    found = [
        Component(name, _component_files(folder / place)) for name, place in parts.items() if is_inside(place or "x")
    ]
    if not any(each.files for each in found):
        msg = f"{folder} is a {kind} pipeline, and no part of it has weights ({some_of(list(parts))}): fetch them"
        raise CheckpointError(msg)
    return tuple(each for each in found if each.files)


def class_of_pipeline(folder: Path) -> str | None:
    """The class that a diffusers pipeline names."""
    name = read_object(folder / _PIPELINE).value.get("_class_name")
    return name if isinstance(name, str) else None


def tensor_files(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The single weight file of a folder, or its numbered weight files.

    Raises ``CheckpointError`` with the kind of the folder and the path to name instead.
    """
    found = [
        name
        for name in names
        if name.endswith(SUFFIXES) and not _OF_TRAININGS.fullmatch(name) and (folder / name).is_file()
    ]
    if len(found) == 1:
        return (found[0],)
    sets = {(match["stem"], match["suffix"]) if (match := _PART.fullmatch(name)) else None for name in found}
    if len(sets) == 1 and None not in sets:
        return tuple(found)
    if found:
        msg = f"{folder} holds {some_of(found)}: name the file that is loaded, such as {folder / found[0]}"
        raise CheckpointError(msg)
    raise _not_a_checkpoint(folder, names)


def _modules(folder: Path) -> dict[str, str]:
    """The part names of a sentence-transformers folder, with their subfolders."""
    with RegularFile(folder / _MODULES) as file:
        try:
            modules: Any = parse(file.read(0, MAX_READ_BYTES)).value
        except ValueError as error:
            msg = f"{folder / _MODULES} is not JSON ({error}): fetch it again"
            raise CheckpointError(msg) from None
    parts: dict[str, str] = {}
    for each in modules if isinstance(modules, list) else ():
        if isinstance(each, dict) and isinstance(place := each.get("path", ""), str):
            parts[place or str(each.get("type", "")).rpartition(".")[2] or "Transformer"] = place
    return parts


def _component_files(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    names = sorted(os.listdir(folder))
    for pattern in _COMPONENT_FILES:
        if found := [folder / name for name in names if pattern.fullmatch(name)]:
            return tuple(found)
    return ()


def _not_a_checkpoint(folder: Path, names: Sequence[str]) -> CheckpointError:
    """The error that describes a folder without a weight file."""
    if not names:
        return CheckpointError(
            f"{folder} is empty: a checkpoint is a folder with config.json and weights, or a file of tensors"
        )
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        how = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} weights.pt"
        return CheckpointError(f"{folder} is a distributed checkpoint of torch (DCP): make one file of it: {how}")
    if "snapshots" in names and "refs" in names:
        snapshots = sorted(os.listdir(folder / "snapshots"))
        which = folder / "snapshots" / (snapshots[-1] if snapshots else "REVISION")
        return CheckpointError(f"{folder} is a folder of the Hub's cache: name the snapshot in it, {which}")
    if below := [name for name in names if _has_weights(folder / name)]:
        trained = [name for name in below if re.fullmatch(r"checkpoint-\d+", name)]
        last = max(trained, key=lambda name: int(name.rpartition("-")[2])) if trained else below[0]
        what = (
            f"is the output of a training with {some_of(trained)}"
            if trained
            else f"has its weights in {some_of(below)}"
        )
        return CheckpointError(f"{folder} {what}: name that folder, {folder / last}")
    found = ", ".join(map(excerpt, names[:10]))
    return CheckpointError(f"{folder} holds {found}, and no file of weights: fetch them, or name the file ({ACCEPTED})")


def _has_weights(folder: Path) -> bool:
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(name.endswith(SUFFIXES) and not _OF_TRAININGS.fullmatch(name) for name in names)
