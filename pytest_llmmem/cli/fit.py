"""``llmmem fit MODEL``: the smallest machine that a model loads and runs on."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pytest_llmmem import probes
from pytest_llmmem.cli.arguments import Json, Loads, Model, checkpoint_of
from pytest_llmmem.cli.output import print_facts, print_json, print_table
from pytest_llmmem.core.errors import CheckpointError, SettingError
from pytest_llmmem.core.sizes import format_size

if TYPE_CHECKING:
    from pytest_llmmem.fit.measuring import Limited, Measured
    from pytest_llmmem.fit.verdict import Verdict
    from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint

_MIB = 2**20
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify", help="Run twice more, in a memory control group, on a copy of the checkpoint."
    ),
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Results for one load."""

    load: str
    measured: "Measured"
    verdict: "Verdict"
    runs: "tuple[Limited, ...]" = ()
    """The verifying ones: at the smallest size, and at the one that it is fast in."""
    complaints: tuple[str, ...] = ()
    unverified: str = ""
    """Why there are none."""


def fit(model: Model, *, load: Loads = None, verify: Verify = True, json: Json = False) -> None:
    """Measure one load and a few forwards, and say which size of container or machine they need."""
    from pytest_llmmem.models.loading.strategies import STRATEGIES

    checkpoint = checkpoint_of(model)
    if broken := (*checkpoint.missing, *checkpoint.truncated):
        msg = f"MODEL {model}: {', '.join(broken)} is missing or cut off: see 'llmmem inspect {model}'"
        raise CheckpointError(msg)
    for name in load or ():
        if name not in STRATEGIES:
            msg = f"--load: {name!r} is not a strategy: write one of {', '.join(STRATEGIES)}"
            raise SettingError(msg)
        if reason := STRATEGIES[name].unavailable():
            msg = f"--load: {name!r}: {reason}"
            raise SettingError(msg)
    found = [_fit(checkpoint, name, verify=verify) for name in load or ["default"]]
    if json:
        print_json(
            {
                "schema": 1,
                "source": model,
                "swap_bytes": probes.swap_bytes(),
                "loads": [_document(each) for each in found],
            }
        )
    else:
        _print(model, found)
    if any(each.complaints for each in found):
        raise typer.Exit(1)


def _fit(checkpoint: "Checkpoint", load: str, *, verify: bool) -> _Found:
    from pytest_llmmem.fit import verifying
    from pytest_llmmem.fit.measuring import measure, run_limited
    from pytest_llmmem.fit.verdict import complaints, verdict_of

    measured = measure(checkpoint.path, load)
    verdict = verdict_of(measured)
    found = _Found(load=load, measured=measured, verdict=verdict)
    unverified = verifying.why_not(checkpoint.path) if verify else "not asked for"
    if unverified:
        return dataclasses.replace(found, unverified=unverified)
    try:
        with verifying.own_copy(checkpoint.path) as copy:
            runs = []
            for limit_bytes, forwards in ((verdict.growth_dies_bytes, 1), (verdict.growth_slow_bytes, 3)):
                verifying.drop_page_cache(copy)
                runs.append(run_limited(copy, load, limit_bytes, forwards=forwards))
    except OSError as error:
        return dataclasses.replace(
            found, unverified=f"no memory control group can be made here ({error.strerror or error})"
        )
    return dataclasses.replace(found, runs=tuple(runs), complaints=tuple(complaints(measured, *runs)))


def _print(model: str, found: Sequence[_Found]) -> None:
    from pytest_llmmem.fit.verdict import MACHINES

    print_facts(
        [
            ("model", model),
            ("measured", "the whole process, its interpreter and imports too; MALLOC_MMAP_THRESHOLD_=131072"),
        ]
    )
    print_table(("load", "base", "dies below", "slow below", "load", "forward"), map(_row, found))
    for each in found:
        typer.echo(f"\n{each.load}:")
        for line in _lines(each):
            typer.echo(f"  {line}")
    shown = [size for size in MACHINES if size <= 4 * max(each.verdict.slow_below_bytes for each in found)][-8:] or [
        *MACHINES[:2]
    ]
    header = ("machine", *(format_size(size, "GiB").replace(".00", "").replace(".0", "") for size in shown))
    print_table(header, ((each.load, *(each.verdict.of_machine(size) for size in shown)) for each in found))


def _lines(found: _Found) -> Iterator[str]:
    verdict, swap_bytes = found.verdict, probes.swap_bytes()
    if found.measured.peak_resident_bytes > 1.05 * found.measured.loaded_resident_bytes:
        yield f"once loaded, slow below {format_size(verdict.slow_once_loaded_below_bytes)} only"
    yield from _verification(found)
    if swap_bytes:
        yield f"this machine has {format_size(swap_bytes)} of swap: without a limit, it swaps before it dies"
    request, limit = _mebibytes(verdict.request_bytes), _mebibytes(verdict.limit_bytes)
    yield f"resources: {{requests: {{memory: {request}}}, limits: {{memory: {limit}}}}}"


def _verification(found: _Found) -> Iterator[str]:
    if found.unverified:
        yield f"not verified: {found.unverified}"
        return
    smallest, fast = found.runs
    dies, slow = format_size(found.verdict.dies_below_bytes), format_size(found.verdict.slow_below_bytes)
    yield f"in a memory control group of {dies} it {_end(smallest)}; of {slow} it {_end(fast)}"
    yield f"without a limit a forward takes {found.measured.forward_s:.2f} s"
    yield from (f"not confirmed: {complaint}" for complaint in found.complaints)


def _end(run: "Limited") -> str:
    if not run.lived:
        return "died"
    return (
        "was still at it after two minutes" if run.forward_s is None else f"ran, a forward took {run.forward_s:.2f} s"
    )


def _row(found: _Found) -> tuple[str, ...]:
    measured, verdict = found.measured, found.verdict
    sizes = (measured.base_resident_bytes, verdict.dies_below_bytes, verdict.slow_below_bytes)
    return found.load, *map(format_size, sizes), f"{measured.load_s:.1f} s", f"{measured.forward_s:.2f} s"


def _document(found: _Found) -> dict[str, Any]:
    from pytest_llmmem.fit.verdict import MACHINES

    verdict = found.verdict
    return {
        "load": found.load,
        "dies_below_bytes": verdict.dies_below_bytes,
        "slow_below_bytes": verdict.slow_below_bytes,
        "slow_once_loaded_below_bytes": verdict.slow_once_loaded_below_bytes,
        "request_bytes": verdict.request_bytes,
        "limit_bytes": verdict.limit_bytes,
        "measured": dataclasses.asdict(found.measured),
        "verified": not found.unverified and not found.complaints,
        "unverified": found.unverified or None,
        "complaints": list(found.complaints),
        "runs": [dataclasses.asdict(run) for run in found.runs],
        "machines": {str(size): verdict.of_machine(size) for size in MACHINES},
    }


def _mebibytes(size_bytes: int) -> str:
    """Format a size as Kubernetes writes it, rounded up."""
    return f"{-(-size_bytes // _MIB)}Mi"
