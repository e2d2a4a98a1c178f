"""The command line, ``llmmem COMMAND MODEL``: the only importer of its library.

A module for each command, or for those of one kind of file. It imports what it needs where it needs it, so that no
command pays for another.
Exit status: 0 held, 1 found something, 2 wrong usage.
"""

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated, Final

import typer

from pytest_llmmem.cli.baselines import compare, history, suggest
from pytest_llmmem.cli.check import check
from pytest_llmmem.cli.estimate import estimate
from pytest_llmmem.cli.fit import fit
from pytest_llmmem.cli.inspect import inspect
from pytest_llmmem.cli.merge import merge
from pytest_llmmem.cli.sweep import sweep
from pytest_llmmem.cli.synth import synth
from pytest_llmmem.cli.try_ import try_
from pytest_llmmem.core.errors import CheckpointError, LlmmemError

COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "check": check,
    "try": try_,
    "fit": fit,
    "estimate": estimate,
    "inspect": inspect,
    "synth": synth,
    "compare": compare,
    "history": history,
    "merge": merge,
    "suggest": suggest,
    "sweep": sweep,
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pytest-llmmem {version('pytest-llmmem')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The memory that language models need to load: read from their headers, or measured."""


for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """Run the command that ``sys.argv`` names. A broken checkpoint is a finding; what else we complain about is wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # a name that the terminal's encoding does not have is no error of the command
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="llmmem")
    except LlmmemError as error:
        sys.stderr.write(f"llmmem: {error}\n")
        sys.exit(1 if isinstance(error, CheckpointError) else 2)
    except Exception:  # noqa: BLE001 -- a mistake of ours must not be taken for a finding
        traceback.print_exc()
        sys.exit(os.EX_SOFTWARE if hasattr(os, "EX_SOFTWARE") else 70)
