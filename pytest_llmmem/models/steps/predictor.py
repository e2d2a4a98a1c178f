"""Predictions in a separate process, with a cache.

torch is never imported in the process that forks workers, and an unsupported model may crash the process that tries it.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Final, Self

from pytest_llmmem.core.endings import signal_name
from pytest_llmmem.core.errors import StepError
from pytest_llmmem.core.plain_data import build, to_plain
from pytest_llmmem.core.printable import excerpt
from pytest_llmmem.core.stacks import parse_stack
from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.models.sources.cache import cache_folder
from pytest_llmmem.models.steps.spec import PredictRequest

_PATIENCE_S: Final = 600
_RECIPE: Final = 3
"""Part of the cache key: increase it when the same request gets another answer."""

_DECIDING: Final = ("torch", "transformers", "peft", "bitsandbytes")
"""Libraries whose version affects the answer, beside our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """The largest batch and length below a limit."""

    limit_bytes: int
    batch_size: int
    """The largest batch size at the requested length; 0 when not even one sequence fits."""

    seq_len: int
    """The largest length at the requested batch size, in steps of 64; 0 when not even 64 tokens fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCell:
    """One batch size and length of a table; ``None`` where the length exceeds the model's positions."""

    batch_size: int
    seq_len: int
    peak_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The answer to a request."""

    memory: StepMemory
    fits: tuple[Fitting, ...] = ()
    grid: tuple[GridCell, ...] = ()

    def to_json(self) -> dict[str, Any]:
        plain: dict[str, Any] = to_plain(self)
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        built: Self = build(cls, data)
        return built


def predict_apart(request: PredictRequest) -> Prediction:
    """The prediction, from the cache for the same versions or made now. Raises ``StepError`` where it is impossible.

    There is no cache while one of the libraries is installed in editable mode: its code changes under one version.
    """
    libraries = _deciding_libraries()
    path = None if any(map(_is_editable, libraries)) else _path(request, libraries)
    if path and (kept := _read(path)):
        return kept
    answer = _ask(request)
    if "error" in answer:
        raise StepError(answer["error"])
    prediction = Prediction.from_json(answer)
    if path:
        _write(path, prediction)
    return prediction


def _deciding_libraries() -> list[Distribution]:
    installed = []
    for name in _DECIDING:
        with contextlib.suppress(PackageNotFoundError):
            installed.append(distribution(name))
    return installed


def _is_editable(library: Distribution) -> bool:
    """Whether the installer has recorded so (PEP 610)."""
    origin = json.loads(library.read_text("direct_url.json") or "{}")
    return bool(origin.get("dir_info", {}).get("editable"))


def _path(request: PredictRequest, libraries: Iterable[Distribution]) -> Path:
    versions = {library.name: library.version for library in libraries} | {"pytest-llmmem": version("pytest-llmmem")}
    text = json.dumps([_RECIPE, request.to_json(), versions], sort_keys=True, default=str)
    return cache_folder() / "predictions" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _read(path: Path) -> Prediction | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return Prediction.from_json(json.loads(path.read_text(encoding="utf-8")))
    return None


def _ask(request: PredictRequest) -> dict[str, Any]:
    # -P: the current folder must not be searched for modules
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "pytest_llmmem.models.steps.program"]
    # the program computes nothing: threads would only take memory
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        asked = subprocess.run(
            command,
            input=json.dumps(request.to_json()),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=_PATIENCE_S,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        msg = f"the prediction takes longer than {_PATIENCE_S} s: predict fewer layers, or measure"
        raise StepError(msg) from None
    if asked.returncode != 0:
        msg = (
            f"the prediction failed ({_why(asked.returncode, asked.stderr)}): measure the step instead, with the fixture "
            "train_step or generate_step"
        )
        raise StepError(msg)
    answer: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    return answer


def _why(returncode: int, errors: str) -> str:
    """The last line of the errors; for a signal, its name and the line of Python that native code was called from."""
    if returncode >= 0:
        return excerpt((errors.strip().splitlines() or [f"exit status {returncode}"])[-1].strip(), limit=500)
    where = next((f" in {Path(each.file).name}:{each.line}" for each in parse_stack(errors).users_first), "")
    return signal_name(-returncode) + where


def _write(path: Path, prediction: Prediction) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{uuid.uuid4().hex[:8]}")
        unfinished.write_text(json.dumps(prediction.to_json()), encoding="utf-8")
        unfinished.replace(path)
