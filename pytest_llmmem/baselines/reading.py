"""Reads reports and baselines, which people edit, merge and mix up: a complaint names the file, the line, and what to do."""

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pytest_llmmem.core.errors import BaselineError
from pytest_llmmem.core.records import SCHEMA, SessionRecord, TestRecord

_SEEMS: Final = {
    "a report of --llm-report": {"environment", "tests"},
    "a baselines file": {"schema", "machines"},
    "a trace of --llm-report": {"traceEvents"},
    "a report of pytest-benchmark": {"machine_info", "benchmarks"},
    "a report of coverage": {"meta", "totals"},
    "a report of pytest-json-report": {"exitcode", "summary"},
    "the index of a checkpoint": {"weight_map"},
    "the config of a model": {"architectures"},
}
"""Files that end up in the place of ours, by the keys that give them away."""


_OTHERS_S: Final = 5.0
"""No session uses the file for longer."""
_Result = TypeVar("_Result")


class Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object that may have duplicate keys."""

    __slots__ = ()


def read_text(path: Path) -> str:
    """The file's text. Raises ``BaselineError``, also when there is no such file."""
    try:
        if path.is_char_device() or path.is_block_device():
            msg = f"{path}: it is a device: name a file"
            raise BaselineError(msg)
        return patiently(path, lambda: path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        msg = f"{path}: it is not text, so neither baselines nor a report of ours: name another file"
        raise BaselineError(msg) from None
    except OSError as error:
        msg = f"{path}: it cannot be read ({error.strerror or error}): name a file that can"
        raise BaselineError(msg) from None


def patiently(path: Path, use: Callable[[], _Result]) -> _Result:
    """Use a file that another session may be about to use: Windows refuses to replace what is read, and the other way round."""
    deadline = time.monotonic() + _OTHERS_S
    while True:
        try:
            return use()
        except PermissionError:
            if sys.platform != "win32" or path.is_dir() or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def parse_json(text: str, *, where: Path, fix: str) -> Any:
    """Plain values, with objects as ``Pairs``. Raises ``BaselineError`` with the line that is no JSON."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("<<<<<<< "):
            msg = f"{where} line {number}: a merge conflict: keep one side, and join the other's file to it with 'llmmem merge'"
            raise BaselineError(msg)
    try:
        return json.loads(text, object_pairs_hook=Pairs)
    except json.JSONDecodeError as error:
        half = f"{where} line {error.lineno}: half-written, or broken by hand ({error.msg})"
        msg = f"{half if text.strip() else f'{where}: it is empty'}: {fix}"
        raise BaselineError(msg) from None
    except (ValueError, RecursionError) as error:
        msg = f"{where}: no file of ours ({type(error).__name__}): {fix}"
        raise BaselineError(msg) from None


def plain(value: Any) -> Any:
    """The same with objects as dictionaries; of a key that is there twice the last counts."""
    if isinstance(value, Pairs):
        return {key: plain(item) for key, item in value}
    return [plain(item) for item in value] if isinstance(value, list) else value


def what_it_seems(value: Any) -> str:
    """``"a report of coverage"``, for the error about a file of another kind."""
    if not isinstance(value, Pairs):
        return "a bare list or value"
    keys = {key for key, _ in value}
    return next((name for name, signs in _SEEMS.items() if signs <= keys), "a file of something else")


def line_of(text: str, path: Sequence[str], *, again: bool = False) -> int:
    """The line of a key, by the keys that lead to it; ``again`` is where the last of them is repeated.

    Of a key that is written in another way than it reads, such as with escapes, the line of what is around it.
    """
    position = 0
    for key in (*path, path[-1]) if again else path:
        match = re.compile(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:").search(text, position)
        if match is None:
            break
        position = match.end()
    return text.count("\n", 0, position) + 1


def is_size(value: object) -> bool:
    """Whether it is a whole number, 0 or more: neither NaN nor ``true``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def read_report(path: Path) -> SessionRecord:
    """A report of ``--llm-report``. Raises ``BaselineError`` for any other file, and for numbers that cannot be."""
    fix = "name a JSON report of --llm-report"
    data = parse_json(read_text(path), where=path, fix=fix)
    raw = plain(data)
    ours = isinstance(raw, dict) and raw.keys() >= {"schema", "tests"} and isinstance(raw.get("environment"), dict)
    if not ours:
        msg = f"{path}: no report of ours, it seems to be {what_it_seems(data)}: {fix}"
        raise BaselineError(msg)
    if is_size(raw["schema"]) and raw["schema"] > SCHEMA:
        msg = f"{path}: schema {raw['schema']}, and this pytest-llmmem reads up to {SCHEMA}: upgrade it"
        raise BaselineError(msg)
    try:
        session = SessionRecord.from_json(raw)
        wrong = [(test.nodeid, size) for test in session.tests for size in _sizes(test) if not is_size(size)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{path}: a report of ours, broken by hand ({error}): write it anew"
        raise BaselineError(msg) from None
    for test in session.tests:
        if not isinstance(test.nodeid, str):
            msg = f"{path}: {test.nodeid!r} is not a node id, which is text: write it anew"
            raise BaselineError(msg)
        if test.environment not in (range(len(session.environments)) if session.environments else (None,)):
            msg = f"{path}: {test.nodeid} ran in environment {test.environment!r}, which is not in it: write it anew"
            raise BaselineError(msg)
    for nodeid, size in wrong:
        msg = f"{path}: {size!r} in {nodeid} is not a size, which is a whole number of bytes, 0 or more: write it anew"
        raise BaselineError(msg)
    return session


def _sizes(test: TestRecord) -> list[object]:
    """The numbers of a record that are compared."""
    ram = test.ram
    own = [ram.peak_bytes, ram.peak_resident_bytes, ram.peak_file_bytes, ram.error_bytes] if ram else []
    return [
        *own,
        *test.run_peaks_bytes,
        *(each.peak_reserved_bytes for each in test.vram),
        *(phase.peak_bytes for phase in test.phases),
    ]
