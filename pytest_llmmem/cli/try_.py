"""``llmmem try MODEL --max-ram LIMIT``: the first load that fits."""

import dataclasses
from typing import Annotated

import typer

from pytest_llmmem.cli.arguments import Device, Json, Loader, Loads, Model, Ranks, TrustRemoteCode, checkpoint_of
from pytest_llmmem.cli.output import print_json
from pytest_llmmem.core.errors import CheckpointError

_FATAL = ("missing", "outside", "truncated", "config")
"""Findings with which no load can succeed."""
MaxRam = Annotated[str, typer.Option("--max-ram", metavar="LIMIT", help="What a load may use: 8GB, or '50% host'.")]


def try_(
    model: Model,
    *,
    max_ram: MaxRam,
    load: Loads = None,
    loader: Loader = None,
    device: Device = None,
    ranks: Ranks = None,
    trust_remote_code: TrustRemoteCode = False,
    json: Json = False,
) -> None:
    """Try ways to load a model, each in a worker that is stopped at the limit, until one fits; print the call to use.

    With --ranks: ways to spread it over processes, which share the limit.
    """
    from pytest_llmmem.cli.session import load_options, run_pytest
    from pytest_llmmem.models.checkpoints.findings import findings
    from pytest_llmmem.reports.terminal import trial_table
    from pytest_llmmem.reports.wording import reasons

    broken = [finding for finding in findings(checkpoint_of(model), needs_config=not loader) if finding.id in _FATAL]
    if broken:
        raise CheckpointError("; ".join(finding.text for finding in broken))
    how = load_options(load or (), loader, device, trust_remote_code=trust_remote_code)
    how += [] if ranks is None else [f"--llm-ranks={ranks}"]
    session = run_pytest("pytest_llmmem.suites.first_fit", f"--llm-model={model}", f"--llm-max-ram={max_ram}", *how)
    (test,) = session.tests
    fits = next((trial for trial in test.trials if trial.fits), None)
    if json:
        trials = [dataclasses.asdict(trial) for trial in test.trials]
        document = {"schema": 1, "source": model, "max_ram": max_ram, "fits": fits.load if fits else None}
        print_json({**document, "call": fits.call if fits else None, "loads": trials})
    else:
        for line in trial_table(test.trials) if test.trials else reasons(test):
            typer.echo(line.removeprefix("Failed: "))
        if test.trials and not fits:
            tried = any(trial.ending != "unavailable" for trial in test.trials)
            typer.echo(f"no load of {model} fits {max_ram}" if tried else "nothing could be tried")
    if not fits:
        raise typer.Exit(1)
