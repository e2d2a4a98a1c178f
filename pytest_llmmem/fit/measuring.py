"""Runs the program in a process of its own: measured from outside, and within a limit if one is given."""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_llmmem import probes
from pytest_llmmem.core.errors import LlmmemError
from pytest_llmmem.core.meter import NONE_COPIED, Meter, Window
from pytest_llmmem.core.readings import NOTHING, Reading
from pytest_llmmem.fit.groups import LimitedGroup
from pytest_llmmem.fit.workload import Workload

STEADY: Final = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""Environment of ``--llm-malloc=steady``: the freed memory that glibc keeps is the same in every run."""
PATIENCE_S: Final = 120.0
"""Shortest time for a run within a limit, which may read its files again and again."""
_TIMEOUT_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run without a limit; bytes."""

    base_unreclaimable_bytes: int
    """Memory of the interpreter with all of its imports, absolute."""
    base_resident_bytes: int
    peak_bytes: int
    """Unreclaimable growth above the base, of the load and of the steps."""
    peak_resident_bytes: int
    loaded_resident_bytes: int
    """The same while it runs only, once it is loaded."""
    error_bytes: int
    load_s: float
    step_s: float
    """The fastest of several steps."""

    def seconds(self, workload: Workload) -> float:
        """Time that a workload takes without a limit, its start aside."""
        return self.load_s + workload.steps * self.step_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """One run within a limit on its growth."""

    limit_bytes: int
    lived: bool
    """Whether it has finished, or was still at it when the time was over."""
    finished: bool
    timeout_s: float
    """The time that it had."""
    step_s: float | None
    """The fastest; ``None`` when there was none."""
    refaulted_bytes: int | None
    """Pages of files that were dropped and read again; ``None`` where that is not counted."""


def measure(workload: Workload) -> Measured:
    """Raises ``LlmmemError`` with the program's last line when it fails."""
    with _started(workload) as program, contextlib.closing(probes.open_memory(program.pid)) as memory:
        meter = Meter(mark_error_bytes=probes.mark_error_bytes())

        def read() -> Reading:
            reading = memory.read()
            if reading is None:
                raise program.failure()
            return reading

        def sample() -> None:
            if reading := memory.read():
                meter.sample(reading)

        def window(name: str) -> tuple[Reading, Window]:
            reading = read()
            meter.boundary(reading, NONE_COPIED)
            return reading, meter.open(name, reading, NOTHING)

        program.expect("ready")
        base, load_window = window("load")
        program.go_on()
        loaded = program.expect("loaded", sample)
        meter.boundary(read(), NONE_COPIED)
        meter.close()
        program.go_on()
        program.expect("running")
        running, run_window = window("run")
        program.go_on()
        done = program.expect("done", sample)
        meter.boundary(read(), NONE_COPIED)
        meter.close()
        program.go_on()
    first, second = load_window.peak, run_window.peak
    kept_bytes = running.unreclaimable_bytes - base.unreclaimable_bytes
    kept_resident_bytes = running.resident_bytes - base.resident_bytes
    loaded_resident_bytes = kept_resident_bytes + second.peak_resident_bytes
    return Measured(
        base_unreclaimable_bytes=base.unreclaimable_bytes,
        base_resident_bytes=base.resident_bytes,
        peak_bytes=max(first.peak_bytes, kept_bytes + second.peak_bytes),
        peak_resident_bytes=max(first.peak_resident_bytes, loaded_resident_bytes),
        loaded_resident_bytes=loaded_resident_bytes,
        error_bytes=max(first.error_bytes, second.error_bytes),
        load_s=loaded["seconds"],
        step_s=min(done["seconds"]),
    )


def run_limited(workload: Workload, limit_bytes: int, *, timeout_s: float = PATIENCE_S) -> Limited:
    """Run with so much growth allowed. Raises ``OSError`` where no control group can be made."""
    group = LimitedGroup.make(limit_bytes)
    end = time.monotonic() + timeout_s
    took: float | None = None
    lived = finished = False
    try:
        with _started(workload) as program:
            program.expect("ready")
            group.enter(program.pid)
            program.go_on()
            try:
                program.expect("loaded", end=end)
                program.go_on()
                program.expect("running", end=end)
                program.go_on()
                took = min(program.expect("done", end=end)["seconds"])
                lived = finished = True
            except TimeoutError:
                lived = program.is_alive()
            except LlmmemError:
                if not program.was_killed():
                    raise
            refaulted_bytes = group.refaulted_bytes()
    finally:
        group.remove()
    return Limited(
        limit_bytes=limit_bytes,
        lived=lived,
        finished=finished,
        timeout_s=timeout_s,
        step_s=took,
        refaulted_bytes=refaulted_bytes,
    )


class _Program:
    """The program while it runs."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.pid = process.pid
        self._buffer = b""

    def expect(
        self, at: str, sample: Callable[[], None] | None = None, *, end: float | None = None
    ) -> Mapping[str, Any]:
        """Its next message; samples until that comes. Raises ``LlmmemError`` when it ends instead, and ``TimeoutError``."""
        assert self._process.stdout, "it was started with a pipe"
        output = self._process.stdout.fileno()
        end = end or time.monotonic() + _TIMEOUT_S
        while b"\n" not in self._buffer:
            if select.select([output], [], [], probes.INTERVAL_S if sample else 0.1)[0]:
                data = os.read(output, 65536)
                if not data:
                    raise self.failure()
                self._buffer += data
            elif sample:
                sample()
            if time.monotonic() > end:
                raise TimeoutError
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: Mapping[str, Any] = json.loads(line)
        assert message["at"] == at, f"{message} where {at!r} was to come"
        return message

    def go_on(self) -> None:
        assert self._process.stdin, "it was started with a pipe"
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def was_killed(self) -> bool:
        return self._process.wait() == -9

    def failure(self) -> LlmmemError:
        code = self._process.wait()
        assert self._process.stderr, "it was started with a file"
        self._process.stderr.seek(0)
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines() or [f"exit status {code}"]
        return LlmmemError(f"the model could not be loaded and run: {lines[-1]}")


@contextlib.contextmanager
def _started(workload: Workload) -> Iterator[_Program]:
    with tempfile.TemporaryDirectory(prefix="llmmem-fit-") as offload, tempfile.TemporaryFile() as errors:
        program = [sys.executable, "-m", "pytest_llmmem.fit.program"]
        process = subprocess.Popen(
            [*program, json.dumps(workload.to_json()), offload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | STEADY,
        )
        process.stderr = errors
        try:
            yield _Program(process)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with contextlib.suppress(OSError):
                        pipe.close()
