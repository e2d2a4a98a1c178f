"""The results of ``llmmem fit``, as text and as a JSON document."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Final

import typer

from pytest_llmmem import probes
from pytest_llmmem.cli.output import print_facts, print_table
from pytest_llmmem.core.hints import DIES, SLOW
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.fit.fitting import Fitted
from pytest_llmmem.fit.measuring import Limited
from pytest_llmmem.fit.verdict import MACHINES
from pytest_llmmem.models.steps.spec import TrainSpec

_MIB: Final = 2**20
_SHOWN: Final = 8
"""Machines in the table: the largest that are at most four times what is needed."""


def show(model: str, found: Sequence[Fitted]) -> None:
    """Print the tables of several loads."""
    train = found[0].workload.train
    print_facts(
        [
            ("model", model),
            *([("training step", _step_words(train))] if train else ()),
            ("measured", "the whole process, its interpreter and imports too; MALLOC_MMAP_THRESHOLD_=131072"),
            ("dies below", DIES),
            ("slow below", SLOW),
        ]
    )
    header = ("load", "", "before the load", "added", "margin", "in all")
    print_table(header, (row for each in found for row in _rows(each)))
    for each in found:
        typer.echo(f"\n{each.workload.load}:")
        for line in _lines(each):
            typer.echo(f"  {line}")
    largest = max(each.verdict.slow_below_bytes for each in found)
    shown = [size for size in MACHINES if size <= 4 * largest][-_SHOWN:] or [*MACHINES[:2]]
    print_table(
        ("machine", *(_gibibytes(size) for size in shown)),
        ((each.workload.load, *(each.verdict.of_machine(size) for size in shown)) for each in found),
    )


def describe(model: str, found: Sequence[Fitted]) -> dict[str, Any]:
    """The JSON document of the command."""
    train = found[0].workload.train
    return {
        "schema": 1,
        "source": model,
        "train": dataclasses.asdict(train) if train else None,
        "swap_bytes": probes.swap_bytes(),
        "loads": [_described(each) for each in found],
    }


def _rows(found: Fitted) -> Iterator[tuple[str, ...]]:
    measured, verdict = found.measured, found.verdict
    for load, word, sizes in (
        (
            found.workload.load,
            "dies below",
            (measured.base_unreclaimable_bytes, measured.peak_bytes, verdict.dies_below_bytes),
        ),
        ("", "slow below", (measured.base_resident_bytes, measured.peak_resident_bytes, verdict.slow_below_bytes)),
    ):
        before_bytes, added_bytes, all_bytes = sizes
        margin_bytes = all_bytes - before_bytes - added_bytes
        yield load, word, *map(format_size, (before_bytes, added_bytes, margin_bytes, all_bytes))


def _lines(found: Fitted) -> Iterator[str]:
    measured, verdict, swap_bytes = found.measured, found.verdict, probes.swap_bytes()
    step = found.workload.step_words
    if measured.peak_resident_bytes > 1.05 * measured.loaded_resident_bytes:
        yield f"once it is loaded, slow below {format_size(verdict.slow_once_loaded_below_bytes)} only"
    yield f"without a limit the load takes {measured.load_s:.1f} s, {step} {measured.step_s:.2f} s"
    if found.unverified:
        yield f"not verified: {found.unverified}"
    else:
        smallest, fast = found.runs
        dies, slow = format_size(verdict.dies_below_bytes), format_size(verdict.slow_below_bytes)
        yield f"verified in a memory control group: in {dies} it {_end(smallest, step)}; in {slow} it {_end(fast, step)}"
        yield from (f"not confirmed: {complaint}" for complaint in found.complaints)
    if swap_bytes:
        yield f"this machine has {format_size(swap_bytes)} of swap: without a limit, it swaps before it dies"
    request, limit = _mebibytes(verdict.request_bytes), _mebibytes(verdict.limit_bytes)
    yield f"resources: {{requests: {{memory: {request}}}, limits: {{memory: {limit}}}}}"


def _end(run: Limited, step: str) -> str:
    if not run.lived:
        return "died"
    if run.step_s is None:
        return f"lived, and had not finished after {run.timeout_s:.0f} s"
    return f"lived, {step} took {run.step_s:.2f} s"


def _step_words(train: TrainSpec) -> str:
    """``"2 x 128 tokens, adamw, lora 16"``."""
    settings = {"lora": train.lora, "accumulation": train.accumulation if train.accumulation > 1 else None}
    named = [f"{name} {value}" for name, value in (settings | {"autocast": train.autocast}).items() if value]
    checkpointing = ["checkpointing"] if train.checkpointing else []
    return ", ".join([f"{train.batch_size} x {train.seq_len} tokens", train.optimizer, *named, *checkpointing])


def _described(found: Fitted) -> dict[str, Any]:
    verdict = found.verdict
    return {
        "load": found.workload.load,
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


def _gibibytes(size_bytes: int) -> str:
    return f"{size_bytes // 2**30} GiB"


def _mebibytes(size_bytes: int) -> str:
    """Format a size as Kubernetes writes it, rounded up."""
    return f"{-(-size_bytes // _MIB)}Mi"
