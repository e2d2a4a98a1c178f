"""Records of tests as a session would have made them, sizes in MB."""

from collections.abc import Mapping

from hypothesis import strategies as st

from pytest_llmmem.baselines.values import Baseline, Baselines, StepBaseline
from pytest_llmmem.core.endings import Ending
from pytest_llmmem.core.readings import Peak
from pytest_llmmem.core.record_parts import ModelRecord, Phase, VramRecord
from pytest_llmmem.core.records import SessionRecord, TestRecord
from pytest_llmmem.core.steps import StepMemory, StepPhase

MB = 10**6


def record(
    nodeid: str = "tests/test_x.py::test_a", peak: float = 0, *, file: float = 0, error: float = 0, outcome: str = "passed",
    phases: Mapping[str, float] | None = None, vram: Mapping[str, float] | None = None, model: ModelRecord | None = None,
    steps: tuple[StepMemory, ...] = (), **ending: object,
) -> TestRecord:  # fmt: skip
    bytes_ = int(peak * MB)
    return TestRecord(
        nodeid=nodeid, outcome=outcome, duration_s=1.0, ending=Ending(**{"kind": "completed", **ending}),
        ram=Peak(baseline_bytes=100 * MB, peak_bytes=bytes_, peak_resident_bytes=bytes_ + int(file * MB),
                      peak_file_bytes=int(file * MB), absolute_peak_bytes=bytes_ + 100 * MB, error_bytes=int(error * MB),
                      method="kernel", interval_ms=2.0),
        phases=tuple(Phase(name=name, peak_bytes=int(size * MB), seconds=1.0) for name, size in (phases or {}).items()),
        vram=tuple(VramRecord(device=device, peak_allocated_bytes=0, peak_reserved_bytes=int(size * MB))
                   for device, size in (vram or {}).items()),
        model=model, steps=steps,
    )  # fmt: skip


def steps(
    kinds: Mapping[str, float], kept: Mapping[str, float] | None = None, *, name: str = "train_step"
) -> StepMemory:
    """One phase that held all of these kinds at once."""
    largest = {kind: int(size * MB) for kind, size in kinds.items()}
    phase = StepPhase(
        step=1, phase="backward", peak_bytes=sum(largest.values()), by_kind=largest, op="", module="", end_by_kind={}
    )
    patterns = {module: int(size * MB) for module, size in (kept or {}).items()}
    return StepMemory(name=name, device="cpu", phases=(phase,), largest_by_kind=largest, kept_by_pattern=patterns)


def session(*tests: TestRecord, **environment: object) -> SessionRecord:
    known = {"platform": "linux", "machine": "x86_64", "torch": "2.13.0+cpu", "transformers": "5.23.0"}
    return SessionRecord(environment={**known, **environment}, tests=tests)


def baseline(peak: float = 0, **known: object) -> Baseline:
    """The baseline that a record with these numbers would give."""
    kept = {name: known.pop(name) for name in ("commit", "date") if name in known}
    return Baseline.of([record(peak=peak, **known)], **kept)


sizes = st.integers(0, 2**60)
names = st.sampled_from(["a", 'b"c', "d: e", "한", "\\n"])
step_baselines = st.builds(
    StepBaseline, peak_bytes=sizes, largest_by_kind=st.dictionaries(names, sizes, max_size=2),
    kept_by_pattern=st.dictionaries(names, sizes, max_size=2),
)  # fmt: skip
singles = st.builds(
    Baseline, peak_bytes=sizes, peak_resident_bytes=sizes, peak_file_bytes=sizes, error_bytes=sizes, resident_error_bytes=sizes,
    peak_reserved_bytes=st.dictionaries(names, sizes, max_size=2), phases=st.dictionaries(names, sizes, max_size=2),
    steps=st.dictionaries(names, step_baselines, max_size=2), runs=st.just(1), spread_bytes=st.none(), commit=st.none() | names, date=st.none() | st.datetimes().map(str),
)  # fmt: skip
repeated = st.builds(
    Baseline, peak_bytes=sizes, peak_resident_bytes=sizes, peak_file_bytes=sizes, error_bytes=sizes, resident_error_bytes=sizes,
    runs=st.integers(2, 9), spread_bytes=sizes,
)  # fmt: skip
tests = st.dictionaries(
    st.sampled_from(["a.py::a", "a.py::b[x-y]", 'b.py::c["]', "b.py::한"]), singles | repeated, min_size=1, max_size=3
)
files = st.builds(
    Baselines, machines=st.dictionaries(st.sampled_from(["linux cpu", "linux cuda", "mac"]), tests, max_size=2)
)
