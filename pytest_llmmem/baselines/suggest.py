"""Variation of a test's peak between runs, and the tolerance and the budgets that follow from it."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pytest_llmmem.baselines.tolerance import DEFAULT, Tolerance, parse_tolerance
from pytest_llmmem.baselines.values import Baseline, finished, median_run
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.record_parts import ModelRecord
from pytest_llmmem.core.records import TestRecord
from pytest_llmmem.core.sizes import UNITS, format_size

HEADER: Final = ("runs", "median", "spread", "", "of", "budget", "test")
"""Header of the table whose rows are ``Suggestion.rows()``."""

_LADDER_MB: Final = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
_MAX_PERCENT: Final = 20
"""Twice what is left when random tests are out; more would let large tests do anything."""
_SAFETY: Final = 2
"""A few runs do not show the extremes."""

_PROMISES: Final = (
    "0.1 * weights + 200MB",
    "weights + 200MB",
    "weights + shard + 200MB",
    "2 * weights + 200MB",
    "2 * weights + shard + 200MB",
)
"""Limits that loads keep, in the checkpoint's terms, as ``docs/budgets.md`` lists them."""
_FITTING: Final = 1.5
"""A promise that allows more than this times what is needed guards nothing."""
_RANDOM: Final = 0.1
"""A spread above this share of the median, and above the default's bytes, is more than other work on the machine makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One measure over several runs, in bytes."""

    low_bytes: int
    median_bytes: int
    high_bytes: int
    error_bytes: int = 0
    """Error of one run."""

    @property
    def bytes(self) -> int:
        return self.high_bytes - self.low_bytes

    @property
    def own_tolerance(self) -> str | None:
        """The tolerance for the marker of a test that varies more; ``None``: the common tolerance is enough."""
        return limit_for(_SAFETY * self.bytes, None) if self.is_random else None

    @property
    def needed_bytes(self) -> int:
        """Bytes that a tolerance must cover: the spread and the errors of two runs, with a margin."""
        return max(_SAFETY * self.bytes, 2 * self.error_bytes)

    @property
    def is_random(self) -> bool:
        """Whether it would spoil a tolerance that is for all."""
        return self.bytes > max(_RANDOM * self.median_bytes, parse_tolerance(DEFAULT).extra_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The spread of several runs of one test."""

    nodeid: str
    runs: int
    spreads: Mapping[str, Spread]
    """Spreads by measure: ``"unreclaimable"``, and VRAM with the device."""
    error_bytes: int
    """Error of the unreclaimable peak, in the run with the largest error."""
    model: ModelRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """Tolerances and limits derived from the runs."""

    tolerance: Tolerance
    measured: bool
    """``False`` where no test ran twice, or all are random: the tolerance is then the default."""
    tests: tuple[Noise, ...]

    def lines(self) -> Iterator[str]:
        """Lines above the table."""
        option = f'--llm-tolerance="{self.tolerance.text}"'
        if self.measured:
            others = "every test but those below" if any(map(_is_random, self.tests)) else "every test"
            yield f"{option} covers twice the spread, and the errors, of {others}"
        else:
            yield f"{option} is the default: no test has a spread to go by; run with --llm-repeat=3"
        for noise in self.tests:
            for measure, spread in noise.spreads.items():
                if spread.own_tolerance:
                    low, high = format_size(spread.low_bytes), format_size(spread.high_bytes)
                    own = f'@pytest.mark.llm_baseline(tolerance="{spread.own_tolerance}")'
                    yield f"{noise.nodeid} used {low} to {high} {measure}: try --llm-malloc=steady, or {own}"

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Rows of the table, under ``HEADER``: one for each test and measure."""
        for noise in self.tests:
            for measure, spread in noise.spreads.items():
                share = f"{spread.bytes / spread.median_bytes:.1%}" if noise.runs > 1 and spread.median_bytes else ""
                size = format_size(spread.bytes) if noise.runs > 1 else "unknown"
                marker = self.marker(noise, measure, spread)
                yield str(noise.runs), format_size(spread.median_bytes), size, share, measure, marker, noise.nodeid

    def marker(self, noise: Noise, measure: str, spread: Spread) -> str:
        """The budget to write; empty for a device that was not used."""
        needed = spread.high_bytes + max(self.tolerance.bytes(spread.high_bytes), spread.bytes)
        if measure == "unreclaimable":
            return f'@pytest.mark.max_ram("{limit_for(needed + noise.error_bytes, noise.model)}")'
        device = measure.partition(" ")[2]
        return f'@pytest.mark.max_vram("{limit_for(needed, None)}", device="{device}")' if spread.high_bytes else ""


def noise_of(runs: Sequence[TestRecord]) -> Noise | None:
    """The noise of one test; failed runs are ignored. ``None`` when every run failed."""
    runs = [run for run in runs if finished(run)]
    if not runs:
        return None
    each = [Baseline.of([run]) for run in runs]
    error = max(one.error_bytes for one in each)
    spreads = {"unreclaimable": replace(_spread([one.peak_bytes for one in each]), error_bytes=error)}
    for device in each[0].peak_reserved_bytes:
        if all(device in one.peak_reserved_bytes for one in each):
            spreads[f"vram {device}"] = _spread([one.peak_reserved_bytes[device] for one in each])
    record = median_run(runs)
    return Noise(nodeid=record.full_name, runs=len(runs), spreads=spreads, error_bytes=error, model=record.model)


def suggest(tests: Iterable[Noise]) -> Suggestion:
    """The tolerance that the runs speak for, and so the budgets; the noisiest test first."""
    tests = tuple(sorted(tests, key=lambda noise: (-noise.spreads["unreclaimable"].bytes, noise.nodeid)))
    spreads = [spread for noise in tests if noise.runs > 1 for spread in noise.spreads.values()]
    measured = [spread for spread in spreads if not spread.is_random]
    tolerance = tightest(measured) if measured else parse_tolerance(DEFAULT)
    return Suggestion(tolerance=tolerance, measured=bool(measured), tests=tests)


def tightest(spreads: Sequence[Spread]) -> Tolerance:
    """The tolerance that covers every test and allows the least over all of them.

    At least ``"1% + 4MB"``: what a few runs on one machine show is not all there is.
    """
    most = math.ceil(max(spread.needed_bytes for spread in spreads) / UNITS["MB"])
    candidates = []
    for extra in (*_LADDER_MB, max(most, _LADDER_MB[0])):
        left = [(spread.needed_bytes - extra * UNITS["MB"], spread.median_bytes) for spread in spreads]
        if all(median or rest <= 0 for rest, median in left):
            percent = max([1, *(math.ceil(100 * rest / median) for rest, median in left if median)])
            if percent <= _MAX_PERCENT:
                candidates.append(parse_tolerance(f"{percent}% + {extra}MB"))
    return min(candidates, key=lambda tolerance: sum(tolerance.bytes(spread.median_bytes) for spread in spreads))


def limit_for(needed_bytes: int, model: ModelRecord | None) -> str:
    """A limit that holds so much: a promise in the checkpoint's terms where one fits, else a size of two digits."""
    if model:
        terms = {"weights": model.weights_bytes, "shard": model.largest_shard_bytes}
        sizes = {promise: parse_limit(promise).bytes(terms) for promise in _PROMISES}
        fitting = [promise for promise in _PROMISES if needed_bytes <= sizes[promise] <= _FITTING * needed_bytes]
        if fitting:
            return min(fitting, key=lambda promise: sizes[promise])
    step = 10 ** max(0, len(str(needed_bytes)) - 2)
    rounded = -(-needed_bytes // step) * step
    unit = next(unit for unit in ("GB", "MB", "kB", "B") if rounded >= UNITS[unit] or unit == "B")
    return f"{rounded / UNITS[unit]:g}{unit}"


def _spread(sizes: Sequence[int]) -> Spread:
    ordered = sorted(sizes)
    return Spread(low_bytes=ordered[0], median_bytes=ordered[(len(ordered) - 1) // 2], high_bytes=ordered[-1])


def _is_random(noise: Noise) -> bool:
    return any(spread.is_random for spread in noise.spreads.values())
