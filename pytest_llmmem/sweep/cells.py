"""The cells of a sweep: one model, loaded in one way, in one environment; and the jobs that measure what a cell needs."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_llmmem.models.estimates.loader_versions import LOADS
from pytest_llmmem.models.sources.presets import PRESETS
from pytest_llmmem.models.sources.source import Source
from pytest_llmmem.sweep.claims import ASSUMED_BASE_BYTES, Claim
from pytest_llmmem.sweep.jobs import HERE, REPORT, Job
from pytest_llmmem.sweep.sweep_file import Environment, SweepFile

_LOOK_BYTES: Final = 500_000_000
"""Memory for reading headers: no model library is imported."""
_LOOK_TIMEOUT_S: Final = 3600.0
"""A model of the Hub is fetched first."""
_SMALL: Final = "synthetic:tiny-llama"
_CHECKS: Final = "from pytest_llmmem.checks import *\n"
_OURS_ALONE: Final = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
_QUIET: Final = ("-q", "-p", "no:cacheprovider")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One pytest session of the sweep."""

    name: str
    """``"MODEL/LOAD/ENVIRONMENT"``, unique and fit for a path."""
    label: str
    """The model's part of the name."""
    source: str
    """The value of ``--llm-model``: independent of the working directory."""
    load: str
    environment: Environment

    @property
    def model(self) -> str:
        """The model, in one environment: what is predicted together."""
        return f"{self.label}/{self.environment.name}"


def cells_of(sweep: SweepFile) -> tuple[Cell, ...]:
    """Every model, with every load, in every environment."""
    return tuple(
        Cell(
            name=f"{label}/{load}/{environment.name}",
            label=label,
            source=_absolute(source, sweep.folder),
            load=load,
            environment=environment,
        )
        for label, source in zip(_labels(sweep.models), sweep.models, strict=True)
        for load in sweep.loads
        for environment in sweep.environments
    )


def job_of(cell: Cell, sweep: SweepFile, claim: Claim) -> Job:
    """The cell's session. A test that needs more than was predicted is stopped by its own guard, with place and stack."""
    limit = sweep.max_ram.text if sweep.max_ram else f"{claim.growth_bytes}B"
    options = (
        f"--llm-report={REPORT}",
        f"--llm-model={cell.source}",
        f"--llm-load={cell.load}",
        f"--llm-timeout={sweep.timeout_s:g}",
        f"--llm-max-ram={limit}",
        "--llm-on-breach=stop",
        *([f"--llm-ranks={sweep.ranks}"] if sweep.ranks > 1 else ()),
        *sweep.arguments,
    )
    known: dict[str, Any] = {
        "name": f"cells/{cell.name}",
        "python": cell.environment.python,
        "timeout_s": sweep.cell_timeout_s,
        "memory_bytes": claim.memory_bytes,
        "cpus": sweep.cpus,
        "gpus": sweep.gpus,
        "model": cell.label,
    }
    if sweep.tests:
        return Job(
            **known,
            arguments=("-m", "pytest", *_QUIET, *options, *sweep.tests),
            folder=sweep.folder,
            variables=cell.environment.variables,
        )
    chosen = tuple(f"checks.py::test_{check}" for check in sweep.checks) or ("checks.py",)
    return Job(**known, **_checks(cell.environment, *options, *chosen))


def base_job(environment: Environment) -> Job:
    """Measures what a session's processes take beside what a test adds: a check of a model of a few MB."""
    options = (f"--llm-report={REPORT}", f"--llm-model={_SMALL}", "checks.py::test_forward")
    return Job(
        name=f"measured/base/{environment.name}",
        python=environment.python,
        memory_bytes=2 * ASSUMED_BASE_BYTES,
        measures_tree=True,
        **_checks(environment, *options),
    )


def look_jobs(cells: tuple[Cell, ...]) -> Iterator[Job]:
    """Read each model's headers, by the version of the loader that each environment has; fetch it to the node if need be."""
    loads: dict[str, list[str]] = {}
    for cell in cells:
        loads.setdefault(cell.model, []).extend([cell.load] if cell.load in LOADS else [])
    for cell in {cell.model: cell for cell in cells}.values():
        chosen = (f"--load={load}" for load in loads[cell.model] or ["default"])
        yield Job(
            name=f"measured/model/{cell.model}",
            python=cell.environment.python,
            arguments=("-m", "pytest_llmmem", "estimate", cell.source, "--json", *chosen),
            variables=cell.environment.variables,
            timeout_s=_LOOK_TIMEOUT_S,
            memory_bytes=_LOOK_BYTES,
            model=cell.label,
        )


def _checks(environment: Environment, *options: str) -> dict[str, Any]:
    """Fields of a job that runs ready-made checks, without the settings and plugins of any project."""
    alone = (f"--rootdir={HERE}", f"-c{HERE}/pytest.ini", "-p", "llmmem", "--llm-scope=module", "--llm-malloc=steady")
    return {
        "arguments": ("-m", "pytest", *_QUIET, *alone, *options),
        "files": {"pytest.ini": "[pytest]\n", "checks.py": _CHECKS},
        "variables": {**_OURS_ALONE, **environment.variables},
    }


def _labels(models: tuple[Source, ...]) -> list[str]:
    """Short names that can be part of a path; of equal ones, the later get a number."""
    taken: Counter[str] = Counter()
    labels = []
    for model in models:
        label = "/".join(re.sub(r"[^\w.=@-]+", "-", part).strip(".") or "-" for part in model.label.split("/"))
        taken[label] += 1
        labels.append(label if taken[label] == 1 else f"{label}-{taken[label]}")
    return labels


def _absolute(model: Source, folder: str) -> str:
    if isinstance(model.target, Path):
        return str(model.target)
    kind, _, rest = model.text.partition(":")
    name, question, query = rest.partition("?")
    if kind != "synthetic" or name in PRESETS:
        return model.text
    return f"{kind}:{Path(folder, Path(name).expanduser())}{question}{query}"
