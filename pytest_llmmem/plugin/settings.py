"""Options and ini values, resolved once, each value knowing where it came from."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import pytest

from pytest_llmmem.baselines.tolerance import Tolerance, parse_tolerance
from pytest_llmmem.core.check_ids import CHECKS, STEP_CHECKS
from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.core.limits import Limit, parse_limit
from pytest_llmmem.core.long_paths import reachable, resolved
from pytest_llmmem.core.sizes import parse_seconds, parse_size
from pytest_llmmem.core.vram import parse_device
from pytest_llmmem.plugin.options import OPTIONS

T = TypeVar("T")
Isolate = Literal["marked", "all", "none"]
WorkerKind = Literal["auto", "fork", "spawn"]
Scope = Literal["function", "class", "module", "session"]

MOST_RANKS: Final = 64
"""More processes on one machine are a slip of the pen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The session's settings, checked."""

    model: tuple[str, ...]
    load: tuple[str, ...]
    """Names of strategies; none: each test's own, or ``default``."""
    loader: str | None
    """``"package.module:function"``, imported when it is first asked for."""
    device: str | None
    """Device of ``loaded_model``: ``"cuda:0"``; ``None``: the strategy decides."""
    trust_remote_code: bool
    isolate: Isolate
    worker: WorkerKind
    preload: tuple[str, ...]
    """Modules that the fork server imports."""
    timeout_s: float | None
    max_ram: Limit | None
    max_vram: Limit | None
    require_gpu: bool
    vram_snapshot: Path | None
    max_disk: Limit | None
    on_breach: Literal["finish", "stop"]
    enforce: Literal["watch", "rlimit", "cgroup", "job"]
    reserve_bytes: int | None
    """``None``: the default of the machine that it runs on."""
    scope: Scope
    ranks: int | None
    """Number of ranks for tests whose load needs several processes; ``None``: not set."""
    malloc: Literal["default", "steady"]
    baseline: Path | None
    """``None``: the one in the root folder, if it is there."""
    baseline_update: bool
    tolerance: Tolerance
    repeat: int
    skip_check: tuple[str, ...]
    report: tuple[Path, ...]
    why_none: str | None = None
    """Why nothing is isolated, when something else than the option decided so."""


def resolve_settings(config: pytest.Config) -> Settings:
    """Read and check every setting. Raises ``SettingError`` with where, what, and what is accepted."""
    given = {option.name: option.value(config) for option in OPTIONS}
    for option in OPTIONS:
        value, where = given[option.name]
        if option.choices and value not in option.choices:
            msg = f"{where}: {value!r} is not one of {', '.join(option.choices)}"
            raise SettingError(msg)
    if given["worker"][0] == "fork" and sys.platform != "linux":
        msg = f"{given['worker'][1]}: workers can be forked on Linux only: use 'auto' or 'spawn'"
        raise SettingError(msg)
    why_none = _why_none(config)
    values = {name: value for name, (value, _) in given.items()}
    if values["baseline_update"] and (why_none or values["isolate"] == "none"):
        without = why_none or "--llm-isolate=none"
        where = given["baseline_update"][1]
        msg = f"{where}: baselines are of isolated tests, and {without} isolates none: leave one of them out"
        raise SettingError(msg)
    baseline = _path(config, values["baseline"]) if values["baseline"] else None
    return Settings(
        model=tuple(values["model"]),
        load=tuple(dict.fromkeys(values["load"])),
        loader=values["loader"],
        device=_parsed(given["device"], parse_device),
        trust_remote_code=values["trust_remote_code"],
        isolate="none" if why_none else cast("Isolate", values["isolate"]),
        worker=values["worker"],
        preload=_checked(given["preload"], parse_modules),
        timeout_s=_parsed(given["timeout"], parse_seconds),
        max_ram=_parsed(given["max_ram"], parse_limit),
        max_vram=_parsed(given["max_vram"], parse_limit),
        require_gpu=values["require_gpu"],
        vram_snapshot=_parsed(given["vram_snapshot"], partial(_folder, config)),
        max_disk=_parsed(given["max_disk"], parse_limit),
        on_breach=values["on_breach"],
        enforce=values["enforce"],
        reserve_bytes=_parsed(given["reserve"], parse_size),
        scope=values["scope"],
        ranks=_parsed(given["ranks"], parse_ranks),
        malloc=values["malloc"],
        baseline=baseline,
        baseline_update=values["baseline_update"],
        tolerance=_checked(given["tolerance"], parse_tolerance),
        repeat=_checked(given["repeat"], parse_count),
        skip_check=_checked(given["skip_check"], parse_checks),
        report=tuple(_report_path(config, path, given["report"][1], baseline) for path in values["report"]),
        why_none=why_none,
    )


def parse_count(value: object) -> int:
    """A whole number above zero. Raises ``ValueError`` with what is accepted."""
    if not str(value).isdecimal() or int(str(value)) < 1:
        msg = f"{value!r} is not a number of runs: write 1 or more"
        raise ValueError(msg)
    return int(str(value))


def parse_ranks(value: object) -> int:
    """A number of ranks. Raises ``ValueError`` with what is accepted."""
    if isinstance(value, bool) or not str(value).isdecimal() or not 1 <= int(str(value)) <= MOST_RANKS:
        msg = f"{value!r} is not a number of ranks: write 1 to {MOST_RANKS}"
        raise ValueError(msg)
    return int(str(value))


def parse_checks(value: Any) -> tuple[str, ...]:
    """Ids of ready-made checks. Raises ``ValueError`` with those that there are."""
    for name in value:
        if name not in (*CHECKS, *STEP_CHECKS):
            msg = f"{name!r} is not a check: write some of {', '.join((*CHECKS, *STEP_CHECKS))}"
            raise ValueError(msg)
    return tuple(value)


def parse_modules(value: Any) -> tuple[str, ...]:
    """Names of modules that are there; none is imported to find out. Raises ``ValueError`` for one that is not."""
    for name in value:
        places = None
        for end in range(1, name.count(".") + 2):
            part = ".".join(name.split(".")[:end])
            spec = PathFinder.find_spec(part, places)
            if spec is None and part not in sys.builtin_module_names:
                msg = f"there is no module {name!r} ({part} is not found): install it, or put its folder on sys.path"
                raise ValueError(msg)
            places = spec.submodule_search_locations if spec else []
    return tuple(value)


def _parsed(given: tuple[Any, str], parse: Callable[[Any], T]) -> T | None:
    return None if given[0] is None else _checked(given, parse)


def _checked(given: tuple[Any, str], parse: Callable[[Any], T]) -> T:
    value, where = given
    try:
        return parse(value)
    except ValueError as error:
        msg = f"{where}: {error}"
        raise SettingError(msg) from None


def _why_none(config: pytest.Config) -> str | None:
    for option in ("usepdb", "trace"):
        if config.getoption(option, False):
            return f"--{option.removeprefix('use')}"
    return None


def _path(config: pytest.Config, text: str) -> Path:
    return reachable(Path(config.invocation_params.dir, text))


def _folder(config: pytest.Config, text: str) -> Path:
    """A folder, made if need be. Raises ``ValueError`` when it cannot be."""
    path = _path(config, text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{text!r} cannot be made a folder: {error.strerror}"
        raise ValueError(msg) from None
    return path


def _report_path(config: pytest.Config, text: str, where: str, baseline: Path | None) -> Path:
    from pytest_llmmem.baselines.file import NAME
    from pytest_llmmem.plugin.own_formats import check_suffix

    path = _path(config, text)
    if resolved(path) == resolved(baseline or config.rootpath / NAME):
        msg = f"{where}: {text!r} is the file of the baselines: name another one"
        raise SettingError(msg)
    check_suffix(config, text, where)
    try:
        # known before the run, not after an hour of loading
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        msg = f"{where}: {text!r} cannot be written: {error.strerror}"
        raise SettingError(msg) from None
    return path
