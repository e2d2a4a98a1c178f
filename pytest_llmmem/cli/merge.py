"""``llmmem merge``: the reports, or the baselines, of several runners as one file."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pytest_llmmem.cli.arguments import Json
from pytest_llmmem.cli.output import print_json
from pytest_llmmem.core.errors import SettingError

if TYPE_CHECKING:
    from pytest_llmmem.core.records import SessionRecord

Parts = Annotated[
    list[Path], typer.Argument(metavar="PART...", help="JSON reports of --llm-report, or baselines files.")
]
Into = Annotated[
    list[Path] | None,
    typer.Option(
        "--into",
        "-o",
        metavar="FILE",
        help="The file to write; of reports by its ending .json, .html or .md, and several may be named. "
        "Default for baselines: llm-baselines.json.",
    ),
]


def merge(parts: Parts, *, into: Into = None, json: Json = False) -> None:
    """Put the reports, or the baselines, of several runners into one file."""
    kinds = {_is_report(part) for part in parts}
    if len(kinds) > 1:
        msg = "PART: some are reports and some are baselines files: merge the two kinds one after the other"
        raise SettingError(msg)
    counts = _merge_reports(parts, into or ()) if kinds == {True} else _merge_baselines(parts, into or ())
    if json:
        print_json({"schema": 1, "files": [str(path) for path in into or ()], "tests": counts})
    else:
        for name, count in counts.items():
            typer.echo(f"{name}: {count} test{'' if count == 1 else 's'}")


def write_report(record: "SessionRecord", path: Path) -> None:
    """Write a record, whole or not at all, in the format that the file's ending names.

    Raises ``SettingError`` for any other ending, and when the file cannot be written.
    """
    write = _renderer(path)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(write(record), encoding="utf-8", errors="backslashreplace")
        new.replace(path)
    except OSError as error:
        msg = f"{path}: it cannot be written ({error.strerror}): name another file"
        raise SettingError(msg) from None


def _merge_reports(parts: Sequence[Path], into: Sequence[Path]) -> Mapping[str, int]:
    from pytest_llmmem.baselines.reading import read_report
    from pytest_llmmem.reports import merging

    if not into:
        msg = "--into: say where the merged report is to be written, such as -o all.json or -o all.html"
        raise SettingError(msg)
    for path in into:
        _renderer(path)  # before anything is written
    sessions = [(name, read_report(part)) for name, part in zip(merging.names_of(parts), parts, strict=True)]
    try:
        merged = merging.merge([(merging.cell_of(name, session), session) for name, session in sessions])
    except ValueError as error:
        msg = f"PART: {error}"
        raise SettingError(msg) from None
    for path in into:
        write_report(merged, path)
    return {cell.name: cell.tests for cell in merged.cells}


def _merge_baselines(parts: Sequence[Path], into: Sequence[Path]) -> Mapping[str, int]:
    from pytest_llmmem.baselines import file as store

    if len(into) > 1:
        msg = "--into: baselines are written into one file: name one"
        raise SettingError(msg)
    merged = store.merge(into[0] if into else Path(store.NAME), parts)
    return {machine: len(tests) for machine, tests in sorted(merged.machines.items())}


def _is_report(path: Path) -> bool:
    """Whether a file is a report and not baselines. The reader of the file reports any other kind."""
    from pytest_llmmem.baselines.reading import parse_json, plain, read_text

    raw = plain(parse_json(read_text(path), where=path, fix="name a JSON report or a baselines file"))
    return isinstance(raw, dict) and "tests" in raw


def _renderer(path: Path) -> "Callable[[SessionRecord], str]":
    from pytest_llmmem.reports.formats import renderers

    known = {ending: render for ending, render in renderers().items() if ending.startswith(".")}
    if path.suffix not in known:
        msg = f"--into: {str(path)!r} has no ending that says what to write: use one of {', '.join(known)}"
        raise SettingError(msg)
    return known[path.suffix]
