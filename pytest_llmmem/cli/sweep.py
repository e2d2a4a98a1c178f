"""``llmmem sweep FILE``: many models, loads and environments, on this machine or on a Ray cluster."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pytest_llmmem.cli.arguments import Json
from pytest_llmmem.cli.merge import write_report
from pytest_llmmem.cli.output import print_json, print_table
from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.core.printable import printable

if TYPE_CHECKING:
    from pytest_llmmem.core.records import CellRecord, SessionRecord
    from pytest_llmmem.sweep.driver import Engine
    from pytest_llmmem.sweep.earlier import Trend
    from pytest_llmmem.sweep.sweeping import Sweep

File = Annotated[Path, typer.Argument(metavar="[FILE]", help="What to run: docs/fleets.md describes it.")]
On = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="ENGINE",
        help="local: this machine. auto: the Ray cluster that this machine belongs to. HOST:PORT or ray://HOST:PORT: another.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Results; those that are there are not run again.")]
Again = Annotated[
    bool, typer.Option("--again", help="Keep the report of the sweep that has ended, and run every cell anew: a trend.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the cells, what each claims, and what fits no node.")]
Init = Annotated[bool, typer.Option("--init", help="Write FILE for the models that are found here.")]

_REPORTS = ("report.json", "report.html")


def sweep(
    file: File = Path("sweep.toml"),
    *,
    on: On = "local",
    out: Out = Path("results"),
    again: Again = False,
    dry_run: DryRun = False,
    init: Init = False,
    json: Json = False,
) -> None:
    """Run many models, loads and environments: each a session of its own, placed by the memory that it will need."""
    from pytest_llmmem.sweep.earlier import begin_again, read_trend
    from pytest_llmmem.sweep.results import Results
    from pytest_llmmem.sweep.sweep_file import read_sweep_file
    from pytest_llmmem.sweep.sweeping import Sweep

    if init:
        _write_example(file)
        return
    if again and dry_run:
        raise SettingError("--again and --dry-run: write one of them")
    known = read_sweep_file(file)
    with _alone(out), _engine(on) as engine:
        if again:
            begin_again(out)
        trend = read_trend(out)
        asked = Sweep(known, Results(out))
        if dry_run:
            from pytest_llmmem.cli.sweep_plan import print_plan
            from pytest_llmmem.cli.sweep_table import quiet

            asked.measure(engine, quiet)
            print_plan(asked, engine.nodes(), json=json)
            return
        with _told_if_interrupted(out):
            cells = _run(asked, engine, trend, json=json)
    if any(cell.outcome != "passed" for cell in cells):
        raise typer.Exit(1)


def _run(asked: "Sweep", engine: "Engine", trend: "Trend", *, json: bool) -> "tuple[CellRecord, ...]":
    from pytest_llmmem.cli.sweep_table import quiet, watching
    from pytest_llmmem.reports.matrix import rows
    from pytest_llmmem.sweep.earlier import with_trend

    began = time.monotonic()
    with watching(len(asked.cells), shown=not json) as table:
        asked.measure(engine, table.changed if table else quiet)
        left = asked.unfinished()
        if table:
            table.begin(done=len(asked.jobs) - len(left))
        for cell in asked.run(engine, table.changed if table else quiet):
            if table:
                table.ended(cell)
    record = with_trend(asked.record(), trend)
    folder = asked.results.folder
    for name in _REPORTS:
        write_report(record, folder / name)
    _summarize(record, folder / "summary.md")
    if json:
        print_json({"schema": 1, "folder": str(folder), "cells": [_described(cell) for cell in record.cells]})
        return record.cells
    header, *body = rows(record.cells)
    print_table(header, body)
    for cell in record.cells:
        if cell.sentence:
            typer.echo(printable(f"{cell.name}: {cell.sentence}"))
    counts = [f"{count} {word}" for word in ("passed", "failed", "missing") if (count := _count(record.cells, word))]
    typer.echo(f"\n{len(record.cells)} cells: {', '.join(counts)}; {time.monotonic() - began:.0f} s")
    typer.echo(f"wrote {', '.join(str(folder / name) for name in (*_REPORTS, 'summary.md'))}")
    return record.cells


def _summarize(record: "SessionRecord", path: Path) -> None:
    """One page of Markdown; on GitHub it is the step's summary, too."""
    from pytest_llmmem.reports import github

    text = github.summary(record)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
    if step := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with open(step, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:
            typer.echo(f"llmmem: no summary: $GITHUB_STEP_SUMMARY cannot be written ({error.strerror})", err=True)


def _count(cells: "tuple[CellRecord, ...]", outcome: str) -> int:
    return sum(cell.outcome == outcome for cell in cells)


def _described(cell: "CellRecord") -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(cell)


@contextmanager
def _engine(on: str) -> "Iterator[Engine]":
    if on == "local":
        from pytest_llmmem.sweep.local import Local

        engine: Engine = Local()
    else:
        from pytest_llmmem.sweep.on_ray import Cluster

        engine = Cluster(on)
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def _told_if_interrupted(out: Path) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM: running cells are ended, and finished results are kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"llmmem: interrupted: results are kept in {out}, and the same command goes on", err=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One sweep at a time writes into a folder; the kernel lets go of the lock however the sweep ends."""
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        msg = f"--out {out}: another sweep writes there: wait for it, or name another folder"
        raise SettingError(msg) from None
    except OSError as error:
        msg = f"--out {out}: it cannot be written ({error.strerror}): name another folder"
        raise SettingError(msg) from None


def _write_example(file: Path) -> None:
    from pytest_llmmem.sweep.example import example

    if file.exists():
        msg = f"{file}: it is there already: name another file, or remove it"
        raise SettingError(msg)
    try:
        file.write_text(example(file.parent), encoding="utf-8")
    except OSError as error:
        msg = f"{file}: it cannot be written ({error.strerror}): name another file"
        raise SettingError(msg) from None
    typer.echo(f"wrote {file}: read it, then run 'llmmem sweep {file} --dry-run'")
