"""``llmmem sweep FILE``: many models, loads and environments, on this machine or on a Ray cluster."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pytest_llmmem.cli.arguments import Json
from pytest_llmmem.cli.merge import write_report
from pytest_llmmem.cli.output import print_json, print_table
from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.core.printable import printable
from pytest_llmmem.core.sizes import format_size

if TYPE_CHECKING:
    from pytest_llmmem.core.records import CellRecord, SessionRecord
    from pytest_llmmem.sweep.driver import Engine
    from pytest_llmmem.sweep.placement import Node
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
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the cells, what each claims, and what fits no node.")]
Init = Annotated[bool, typer.Option("--init", help="Write FILE for the models that are found here.")]

_REPORTS = ("report.json", "report.html")


def sweep(
    file: File = Path("sweep.toml"),
    *,
    on: On = "local",
    out: Out = Path("results"),
    dry_run: DryRun = False,
    init: Init = False,
    json: Json = False,
) -> None:
    """Run many models, loads and environments: each a session of its own, placed by the memory that it will need."""
    from pytest_llmmem.sweep.results import Results
    from pytest_llmmem.sweep.sweep_file import read_sweep_file
    from pytest_llmmem.sweep.sweeping import Sweep

    if init:
        _write_example(file)
        return
    known = read_sweep_file(file)
    with _alone(out), _engine(on) as engine:
        asked = Sweep(known, Results(out))
        if dry_run:
            from pytest_llmmem.cli.sweep_table import quiet

            asked.measure(engine, quiet)
            _print_plan(asked, engine.nodes(), json=json)
            return
        with _told_if_interrupted(out):
            cells = _run(asked, engine, json=json)
    if any(cell.outcome != "passed" for cell in cells):
        raise typer.Exit(1)


def _run(asked: "Sweep", engine: "Engine", *, json: bool) -> "tuple[CellRecord, ...]":
    from pytest_llmmem.cli.sweep_table import quiet, watching
    from pytest_llmmem.reports.matrix import rows

    began = time.monotonic()
    with watching(len(asked.cells), shown=not json) as table:
        asked.measure(engine, table.changed if table else quiet)
        left = asked.unfinished()
        if table:
            table.begin(done=len(asked.jobs) - len(left))
        for cell in asked.run(engine, table.changed if table else quiet):
            if table:
                table.ended(cell)
    record = asked.record()
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


def _print_plan(asked: "Sweep", nodes: "Sequence[Node]", *, json: bool) -> None:
    from pytest_llmmem.sweep.placement import fits_nowhere

    cells = [
        {
            "name": cell.name,
            "claim_bytes": asked.claims[cell.name].memory_bytes if cell.name in asked.claims else None,
            "done": cell.name in asked.jobs and asked.results.load(asked.jobs[cell.name]) is not None,
            "fits": cell.name in asked.jobs and not fits_nowhere(asked.jobs[cell.name], nodes),
            "note": asked.claims[cell.name].note
            if cell.name in asked.claims
            else asked.results.why_missing(f"cells/{cell.name}"),
        }
        for cell in asked.cells
    ]
    if json:
        print_json({"schema": 1, "nodes": [_node(node) for node in nodes], "cells": cells})
        return
    print_table(("cell", "claims", "", ""), map(_plan_row, cells))
    print_table(
        ("node", "memory", "CPUs", "GPUs"),
        ((node.name, format_size(node.memory_bytes), f"{node.cpus:g}", f"{node.gpus:g}") for node in nodes),
    )


def _plan_row(cell: dict[str, Any]) -> tuple[str, str, str, str]:
    claim = "" if cell["claim_bytes"] is None else format_size(cell["claim_bytes"])
    state = (
        "done"
        if cell["done"]
        else ""
        if cell["fits"]
        else "cannot run"
        if cell["claim_bytes"] is None
        else "fits no node"
    )
    return cell["name"], claim, state, cell["note"]


def _node(node: "Node") -> dict[str, Any]:
    return {"name": node.name, "memory_bytes": node.memory_bytes, "cpus": node.cpus, "gpus": node.gpus}


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
