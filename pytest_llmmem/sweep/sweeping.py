"""A sweep from its file to its record: measure each environment and model, claim, run, keep."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.core.records import CellRecord, SessionRecord
from pytest_llmmem.sweep.cells import Cell, base_job, cells_of, job_of, look_jobs
from pytest_llmmem.sweep.claims import ASSUMED_BASE_BYTES, Claim, claim_of
from pytest_llmmem.sweep.driver import Engine, State, run
from pytest_llmmem.sweep.jobs import Job
from pytest_llmmem.sweep.results import Results, complaint, has_begun
from pytest_llmmem.sweep.sweep_file import SweepFile

Watch = Callable[[State], None]


@dataclass(slots=True)
class Sweep:
    """One sweep, as far as it has come."""

    file: SweepFile
    results: Results
    cells: tuple[Cell, ...] = field(init=False)
    claims: dict[str, Claim] = field(default_factory=dict)
    """Claims by the cell's name, for cells that can run."""
    jobs: dict[str, Job] = field(default_factory=dict)
    """The same."""

    def __post_init__(self) -> None:
        self.cells = cells_of(self.file)

    def measure(self, engine: Engine, watch: Watch) -> None:
        """Find out what each environment takes and what each model needs, then make the jobs."""
        bases = self._base_bytes(engine, watch)
        usable = tuple(cell for cell in self.cells if isinstance(bases[cell.environment.name], int))
        looks = self._stored(look_jobs(usable), engine, watch)
        for cell in self.cells:
            base = bases[cell.environment.name]
            if isinstance(base, str):
                self.results.give_up(f"cells/{cell.name}", base)
                continue
            look = looks.get(f"measured/model/{cell.model}", {"stdout": ""})
            try:
                claim = claim_of(cell.load, self.file, base_bytes=base, look=look)
            except SettingError as error:
                self.results.give_up(f"cells/{cell.name}", str(error))
                continue
            self.claims[cell.name] = claim
            self.jobs[cell.name] = job_of(cell, self.file, claim)

    def run(self, engine: Engine, watch: Watch) -> Iterator[CellRecord]:
        """Run what has no result yet; yield each cell as it ends."""
        by_job = {f"cells/{cell.name}": cell for cell in self.cells}
        for ended in run(self.unfinished(), engine, watch=watch):
            self.results.keep(ended)
            cell = by_job[ended.job.name]
            yield self.results.summary(cell, self.jobs[cell.name])

    def unfinished(self) -> tuple[Job, ...]:
        """The jobs of the cells that have no result."""
        return tuple(
            job for job in self.jobs.values() if (stored := self.results.load(job)) is None or not has_begun(stored)
        )

    def record(self) -> SessionRecord:
        """All that is known."""
        return self.results.record(self.cells, self.jobs)

    def _base_bytes(self, engine: Engine, watch: Watch) -> Mapping[str, int | str]:
        """Base memory of a session in each environment, or the reason why none can run there."""
        environments = {environment.name: environment for environment in self.file.environments}
        jobs = {name: base_job(environment) for name, environment in environments.items()}
        stored = self._stored(jobs.values(), engine, watch)
        found: dict[str, int | str] = {}
        for name, job in jobs.items():
            result = stored.get(job.name)
            if result is None:
                found[name] = f"env.{name}: its base could not be measured: {self.results.why_missing(job.name)}"
            elif result["report"] is None:
                found[name] = f"env.{name}: {job.python} cannot run a session: {complaint(result)}"
            elif result["exit_code"] == 0 and result["peak_bytes"]:
                found[name] = result["peak_bytes"]
            else:  # its cells fail by themselves, with the reason
                found[name] = ASSUMED_BASE_BYTES
        return found

    def _stored(self, jobs: Iterable[Job], engine: Engine, watch: Watch) -> Mapping[str, Mapping[str, Any]]:
        """Results by the job's name: valid stored results are reused, other jobs run again."""
        asked = {job.name: job for job in jobs}
        found = {name: stored for name, job in asked.items() if (stored := self.results.load(job)) and _is_good(stored)}
        for ended in run([job for name, job in asked.items() if name not in found], engine, watch=watch):
            self.results.keep(ended)
            if stored := self.results.load(ended.job):
                found[ended.job.name] = stored
        return found


def _is_good(stored: Mapping[str, Any]) -> bool:
    """Whether a measurement can be used again: one that failed may succeed once its environment was mended."""
    return stored["exit_code"] in {0, 1} and not stored["timed_out"]
