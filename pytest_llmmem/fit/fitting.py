"""One workload from its measured run to its verdict, verified where that is possible."""

from dataclasses import dataclass, replace
from typing import Final

from pytest_llmmem.fit import verifying
from pytest_llmmem.fit.measuring import PATIENCE_S, Limited, Measured, measure, run_limited
from pytest_llmmem.fit.verdict import Verdict, complaints, verdict_of
from pytest_llmmem.fit.workload import Workload

_SLOWER: Final = 10
"""Times as long as without a limit that a verifying run may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One workload, measured and verified."""

    workload: Workload
    measured: Measured
    verdict: Verdict
    runs: tuple[Limited, ...] = ()
    """The two verifying runs: in the smallest size, and in the size that it is fast in."""
    complaints: tuple[str, ...] = ()
    """Sentences about verifying runs that contradict the verdict."""
    unverified: str = ""
    """Why there are no such runs."""


def fit(workload: Workload, *, verify: bool) -> Fitted:
    """Measure, and verify if asked to. Raises ``LlmmemError`` when the model cannot be loaded, run or trained."""
    measured = measure(workload)
    found = Fitted(workload=workload, measured=measured, verdict=verdict_of(measured))
    unverified = verifying.why_not(workload.folder) if verify else "not asked for"
    if unverified:
        return replace(found, unverified=unverified)
    try:
        runs = _verify(found)
    except OSError as error:
        return replace(found, unverified=f"no memory control group can be made here ({error.strerror or error})")
    return replace(found, runs=runs, complaints=tuple(complaints(measured, *runs)))


def _verify(found: Fitted) -> tuple[Limited, Limited]:
    """Run in the smallest size, and in the size that it is fast in. Raises ``OSError`` where no group can be made."""
    with verifying.own_copy(found.workload.folder) as folder:
        copied = found.workload.of_copy(folder)

        def run(workload: Workload, limit_bytes: int) -> Limited:
            verifying.drop_page_cache(folder)
            return run_limited(
                workload, limit_bytes, timeout_s=max(PATIENCE_S, _SLOWER * found.measured.seconds(workload))
            )

        return (
            run(copied.shortest(), found.verdict.growth_dies_bytes),
            run(copied, found.verdict.growth_slow_bytes),
        )
