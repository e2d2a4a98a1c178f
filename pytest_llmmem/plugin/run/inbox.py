"""The parent's inbox: messages from a worker while it runs one item."""

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from pytest_llmmem import probes
from pytest_llmmem.core.growth import MemoryGrowth
from pytest_llmmem.core.hints import lazy_load_notes
from pytest_llmmem.core.measured import Measured
from pytest_llmmem.core.readings import Reading
from pytest_llmmem.core.record_parts import ModelRecord, Phase
from pytest_llmmem.core.steps import StepMemory
from pytest_llmmem.measuring.inner_phases import InnerPhase, with_inner
from pytest_llmmem.models.checkpoints.checkpoint import Checkpoint
from pytest_llmmem.plugin.collect.loads import load_of
from pytest_llmmem.plugin.compat import name_rank, restore_report
from pytest_llmmem.plugin.run.importable_classes import find_class
from pytest_llmmem.plugin.run.progress import Progress
from pytest_llmmem.plugin.worker.import_costs import Imported, import_notes
from pytest_llmmem.plugin.worker.messages import Aborted, AtEnd, Loaded, Raised, Reported, Stepped, Warned
from pytest_llmmem.plugin.worker.repeated_calls import Grown
from pytest_llmmem.probes.host import HostMemory


@dataclass(slots=True)
class Inbox:
    """Messages from a worker while it runs one item."""

    item: pytest.Item
    progress_line: Progress
    host: HostMemory = field(default_factory=probes.host_memory)
    """Before the test."""
    rank: int = 0
    """Rank of the worker, if several run the item at once; only the first one passes on warnings."""
    aborted: Aborted | None = None
    loaded: Loaded | None = None
    at_end: AtEnd | None = None
    growth: MemoryGrowth | None = None
    """Growth of a test that is marked with ``max_growth``."""
    raised: Raised | None = None
    """The first, which the later ones may follow from."""
    _imported: list[Imported] = field(default_factory=list)
    _reported: list[Reported] = field(default_factory=list)
    _steps: dict[str, StepMemory] = field(default_factory=dict)
    _inner: list[InnerPhase] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    def received(self, what: Any) -> None:
        match what:
            case Reported():
                self._reported.append(what)
            case Warned() if self.rank == 0:
                self._warn(what)
            case Aborted():
                self.aborted = what
            case Loaded():
                self.loaded = what
            case Grown(growth):
                self.growth = growth
            case InnerPhase():
                self._inner.append(what)
            case Stepped(memory):
                self._steps[memory.name] = memory
            case _:
                self._received_fact(what)

    def _received_fact(self, what: Any) -> None:
        match what:
            case Imported():
                self._imported.append(what)
            case AtEnd():
                self.at_end = what
            case Raised():
                self.raised = self.raised or what

    def progress(self, pid: int, seconds: float, reading: Reading, growth_bytes: int) -> None:
        self.progress_line.update(pid, seconds, growth_bytes + reading.file_bytes)

    def phases(self, measured: Measured) -> tuple[Phase, ...]:
        """Phases of the test, and its measurements in separate workers."""
        return with_inner(measured.phases, self._inner, self._began)

    @property
    def is_set_up(self) -> bool:
        """Whether its setup has passed."""
        return any(each.data["when"] == "setup" and each.data["outcome"] == "passed" for each in self._reported)

    @property
    def steps(self) -> tuple[StepMemory, ...]:
        """Memory of training or inference steps, in order."""
        return tuple(self._steps.values())

    def reports(self) -> list[pytest.TestReport]:
        config = self.item.config
        reports = [restore_report(config, each.data, each.failed_subtests) for each in self._reported]
        for report in reports if self.rank else ():
            name_rank(report, self.rank)
        return reports

    @property
    def has_failed(self) -> bool:
        """Whether the test has failed in this worker, expectedly or not, or asked to end the session."""
        return self.aborted is not None or any(
            each.data["outcome"] == "failed" or ("wasxfail" in each.data and each.data["outcome"] == "skipped")
            for each in self._reported
            if "_subtest.context" not in each.data
        )

    def model(self, checkpoint: Checkpoint | None) -> ModelRecord | None:
        """The model of the test, as far as it is known."""
        if checkpoint is None:
            return None
        return ModelRecord(
            source=checkpoint.source,
            load=self.loaded.load if self.loaded else load_of(self.item).strategy,
            weights_bytes=checkpoint.weights_bytes,
            largest_shard_bytes=checkpoint.largest_shard_bytes,
            parameters=checkpoint.parameters,
            mapped_bytes=self.loaded.mapped_bytes if self.loaded else None,
        )

    def notes(self, measured: Measured, model: ModelRecord | None) -> tuple[str, ...]:
        """Remarks for the reader, although nothing failed."""
        lazy = lazy_load_notes(
            measured.verdicts,
            measured.peak,
            weights_bytes=model.weights_bytes if model else None,
            still_mapped_bytes=self.at_end.mapped_bytes if self.at_end else None,
        )
        refused = self.raised.out_of_vram if self.raised else None
        hints = self.loaded.hints if self.loaded else ()
        return (*lazy, *import_notes(self._imported), *hints, *([refused.sentence()] if refused else []))

    def _warn(self, warned: Warned) -> None:
        self.item.ihook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": warned.rebuild(partial(find_class, self.item.config)),
                "nodeid": warned.nodeid,
                "when": warned.when,
                "location": warned.location,
            }
        )
