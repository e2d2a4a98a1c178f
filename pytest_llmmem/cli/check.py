"""``llmmem check MODEL``: the ready-made checks, each in a worker of its own."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pytest_llmmem.cli.arguments import Device, Json, Loader, Loads, Model, Ranks, TrustRemoteCode
from pytest_llmmem.cli.output import print_json, print_table
from pytest_llmmem.core.printable import printable
from pytest_llmmem.core.sizes import format_size

if TYPE_CHECKING:
    from pytest_llmmem.core.records import TestRecord

Skip = Annotated[
    list[str] | None, typer.Option("--skip", metavar="ID", help="Leave this check out; repeat for several.")
]
Steps = Annotated[
    bool, typer.Option("--steps", help="Check how it trains and generates instead, without weights and without a GPU.")
]
_WITHOUT_RANKS = "-knot test_group and not test_rank"
"""Deselects the checks of a load over ranks, which would all be skipped."""
_FAILED = ("failed", "error")


def check(
    model: Model,
    *,
    load: Loads = None,
    loader: Loader = None,
    device: Device = None,
    ranks: Ranks = None,
    skip: Skip = None,
    steps: Steps = False,
    trust_remote_code: TrustRemoteCode = False,
    json: Json = False,
) -> None:
    """Run the ready-made checks: does it load whole, within its weights and a shard, in its dtype, and go again?

    With --steps: do checkpointing, accumulation, the optimizer, an adapter, evaluation and the cache take what they should?
    """
    from pytest_llmmem.cli.session import load_options, run_pytest

    options = [
        "--llm-scope=module",  # checks that only read the model share one load
        "--llm-malloc=steady",  # what a load needs, and gives back, repeats
        f"--llm-model={model}",
        *load_options(load or (), loader, device, trust_remote_code=trust_remote_code),
        *([_WITHOUT_RANKS] if ranks is None else [f"--llm-ranks={ranks}"]),
        *(f"--llm-skip-check={each}" for each in skip or ()),
    ]
    session = run_pytest("pytest_llmmem.step_checks" if steps else "pytest_llmmem.checks", *options)
    checks = [_described(test) for test in session.tests]
    unusable = any(reason.startswith("llm_load ") for each in checks for reason in each["reasons"])
    held = not unusable and not any(each["outcome"] in _FAILED for each in checks)
    if json:
        print_json({"schema": 1, "source": model, "held": held, "checks": checks})
    else:
        print_table(("check", "load", "", "seconds", "peak"), map(_row, checks))
        for line in _reasons(checks):
            typer.echo(printable(line))
    if not held:
        raise typer.Exit(1)


def _described(test: "TestRecord") -> dict[str, Any]:
    from pytest_llmmem.reports.wording import reasons

    failed = test.outcome in _FAILED
    return {
        "id": test.nodeid.rpartition("::")[2].partition("[")[0].removeprefix("test_"),
        "load": test.model.load if test.model else None,
        "outcome": test.outcome,
        "seconds": round(test.duration_s, 3),
        "peak_bytes": test.ram.peak_bytes if test.ram else None,
        "reasons": list(reasons(test)) if failed else [test.ending.note] if test.ending.note else [],
    }


def _row(each: dict[str, Any]) -> tuple[str, str, str, str, str]:
    # a check that only reads the model that the first check loaded needs almost no memory itself
    peak = format_size(each["peak_bytes"]) if (each["peak_bytes"] or 0) >= 10**6 else ""
    return each["id"], each["load"] or "", each["outcome"], f"{each['seconds']:.1f}", peak


def _reasons(checks: list[dict[str, Any]]) -> Iterator[str]:
    """Each reason once, below the names of those that have it."""
    by_reason: dict[tuple[str, ...], list[str]] = {}
    for each in checks:
        if each["reasons"]:
            load = f" ({each['load']})" if each["load"] else ""
            by_reason.setdefault(tuple(each["reasons"]), []).append(f"{each['id']} {each['outcome']}{load}")
    for (first, *others), names in by_reason.items():
        yield ""
        yield f"{', '.join(names)}: {first.removeprefix('Failed: ')}"
        yield from (f"  {line}" for line in others)
