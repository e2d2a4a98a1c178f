"""The text of a baselines file: sorted, one line for each number, the size for people beside the bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from pytest_llmmem.baselines.reading import Pairs, is_size, line_of, parse_json, plain, what_it_seems
from pytest_llmmem.baselines.values import Baseline, Baselines, StepBaseline
from pytest_llmmem.core.errors import BaselineError
from pytest_llmmem.core.sizes import format_size

SCHEMA: Final = 1

_SIZES: Final = ("peak_bytes", "peak_resident_bytes", "peak_file_bytes", "error_bytes")
_SIZES_BY_NAME: Final = ("peak_reserved_bytes", "phases")
_SIZES_OF_STEPS: Final = ("largest_by_kind", "kept_by_pattern")
_TEXTS: Final = ("commit", "date")
_FIX: Final = "restore the file from version control, or delete it and run with --llm-baseline-update"


def render(baselines: Baselines) -> str:
    """The text of the file; equal baselines have equal text, whatever order they came in."""
    machines = {
        key: {nodeid: _entry(baseline) for nodeid, baseline in sorted(tests.items())}
        for key, tests in sorted(baselines.machines.items())
    }
    return _block({"schema": SCHEMA, "machines": machines}, indent="") + "\n"


def _entry(baseline: Baseline) -> dict[str, Any]:
    entry: dict[str, Any] = {name: _beside(getattr(baseline, name)) for name in _SIZES}
    if baseline.resident_error_bytes != baseline.error_bytes:
        entry["resident_error_bytes"] = _beside(baseline.resident_error_bytes)
    if baseline.peak_reserved_bytes:
        entry["peak_reserved_bytes"] = {
            device: _beside(size) for device, size in sorted(baseline.peak_reserved_bytes.items())
        }
    entry["phases"] = {name: _beside(size) for name, size in baseline.phases.items()}
    if baseline.steps:
        entry["steps"] = {name: _step(step) for name, step in baseline.steps.items()}
    if baseline.spread_bytes is not None:
        entry |= {"runs": baseline.runs, "spread_bytes": _beside(baseline.spread_bytes)}
    return entry | {name: value for name in _TEXTS if (value := getattr(baseline, name)) is not None}


def _step(step: StepBaseline) -> dict[str, Any]:
    sizes = {
        name: {key: _beside(size) for key, size in getattr(step, name).items()}
        for name in _SIZES_OF_STEPS
        if getattr(step, name)
    }
    return {"peak_bytes": _beside(step.peak_bytes)} | sizes


def _beside(size: int) -> list[int | str]:
    return [size, format_size(size)]


def _block(value: Any, *, indent: str) -> str:
    """Objects over several lines, everything else on one, which ``json.dumps`` cannot do."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = indent + " "
    lines = (
        f"{inner}{json.dumps(key, ensure_ascii=False)}: {_block(item, indent=inner)}" for key, item in value.items()
    )
    return "{\n" + ",\n".join(lines) + "\n" + indent + "}"


def parse(text: str, *, where: Path) -> Baselines:
    """Read what ``render`` wrote, or a person. Raises ``BaselineError`` with the line of the first thing that is wrong.

    Keys that are not known are passed over, and the sizes for people too: the bytes count.
    """
    return _Reader(text, where).baselines()


class _Reader:
    """The text being read, and where it is from, for messages."""

    def __init__(self, text: str, where: Path) -> None:
        self._text = text
        self._where = where

    def baselines(self) -> Baselines:
        fix = _FIX if self._where.suffix == ".json" else "name the file of the baselines"
        data = parse_json(self._text, where=self._where, fix=fix)
        if not isinstance(data, Pairs) or not {"schema", "machines"} <= {key for key, _ in data}:
            seems = what_it_seems(data)
            msg = f"{self._where}: no baselines file, it seems to be {seems}: name another file"
            raise BaselineError(msg)
        top = self._object(data, ())
        schema = top["schema"]
        if is_size(schema) and schema > SCHEMA:
            newer = "upgrade it, or name another file"
            self._refuse(("schema",), f"schema {schema}, and this pytest-llmmem reads up to {SCHEMA}", fix=newer)
        if not is_size(schema) or schema < 1:
            self._refuse(("schema",), f"{_shown(schema)} is not a schema: it is {SCHEMA}")
        machines = self._object(top["machines"], ("machines",))
        return Baselines(
            machines={key: self._tests(tests, ("machines", key)) for key, tests in machines.items() if tests}
        )

    def _tests(self, value: Any, path: tuple[str, ...]) -> Mapping[str, Baseline]:
        return {nodeid: self._baseline(entry, (*path, nodeid)) for nodeid, entry in self._object(value, path).items()}

    def _baseline(self, value: Any, path: tuple[str, ...]) -> Baseline:
        entry = self._object(value, path)
        for name in _SIZES:
            if name not in entry:
                self._refuse(path, f"{path[-1]} has no {name}")
        known: dict[str, Any] = {name: self._size(entry[name], (*path, name)) for name in _SIZES}
        later = "resident_error_bytes"
        known[later] = self._size(entry[later], (*path, later)) if later in entry else known["error_bytes"]
        for name in _SIZES_BY_NAME:
            known[name] = self._sizes(entry, path, name)
        steps = (*path, "steps")
        known["steps"] = {
            name: self._step(step, (*steps, name))
            for name, step in self._object(entry.get("steps", Pairs()), steps).items()
        }
        if "spread_bytes" in entry:
            known["spread_bytes"] = self._size(entry["spread_bytes"], (*path, "spread_bytes"))
            known["runs"] = entry.get("runs")
            if not is_size(known["runs"]) or known["runs"] < 2:
                self._refuse((*path, "runs"), f"{_shown(known['runs'])} is not a number of runs that have a spread")
        for name in _TEXTS:
            known[name] = entry.get(name)
            if not isinstance(known[name], str | None):
                self._refuse((*path, name), f"{_shown(known[name])} is not a {name}: it is text")
        return Baseline(**known)

    def _step(self, value: Any, path: tuple[str, ...]) -> StepBaseline:
        entry = self._object(value, path)
        if "peak_bytes" not in entry:
            self._refuse(path, f"{path[-1]} has no peak_bytes")
        sizes = {name: self._sizes(entry, path, name) for name in _SIZES_OF_STEPS}
        return StepBaseline(peak_bytes=self._size(entry["peak_bytes"], (*path, "peak_bytes")), **sizes)

    def _sizes(self, entry: Mapping[str, Any], path: tuple[str, ...], name: str) -> dict[str, int]:
        inner = (*path, name)
        return {
            key: self._size(size, (*inner, key)) for key, size in self._object(entry.get(name, Pairs()), inner).items()
        }

    def _object(self, value: Any, path: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(value, Pairs):
            self._refuse(path, f"{_shown(value)} is not an object in braces")
        found: dict[str, Any] = {}
        for key, item in value:
            if key in found:
                self._refuse((*path, key), f"{key!r} is there twice", again=True)
            found[key] = item
        return found

    def _size(self, value: Any, path: tuple[str, ...]) -> int:
        size = value[0] if isinstance(value, list) and value else value
        if not is_size(size):
            self._refuse(path, f"{_shown(size)} is not a size, which is a whole number of bytes, 0 or more")
        return int(size)

    def _refuse(self, path: tuple[str, ...], what: str, *, fix: str = _FIX, again: bool = False) -> NoReturn:
        line = line_of(self._text, path, again=again)
        msg = f"{self._where} line {line}: {what}: {fix}"
        raise BaselineError(msg)


def _shown(value: Any) -> str:
    """Format a value as it is written in the file."""
    return json.dumps(plain(value), ensure_ascii=False)
