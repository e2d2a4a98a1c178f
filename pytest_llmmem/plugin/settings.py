"""Options and ini values: declared in one table, resolved once, each value knowing where it came from."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import pytest

from pytest_llmmem.baselines.tolerance import Tolerance, parse_tolerance
from pytest_llmmem.core.budgets import Limit, parse_limit
from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.core.sizes import parse_size
from pytest_llmmem.core.vram import parse_device

T = TypeVar("T")
Isolate = Literal["marked", "all", "none"]
WorkerKind = Literal["auto", "fork", "spawn"]
Scope = Literal["function", "class", "module", "session"]

REPORT_ENDINGS: Final = ("trace.json", ".json", ".html", ".md")
"""What ``--llm-report`` writes, the first that fits."""


@dataclass(frozen=True, slots=True)
class Option:
    """One setting on its three surfaces: ``--llm-NAME``, ini ``llm_NAME``, and the field of ``Settings``."""

    name: str
    help: str
    choices: tuple[str, ...] = ()
    default: str | None = None
    metavar: str | None = None
    repeatable: bool = False
    is_switch: bool = False
    """Given without a value, or as ``true`` in the ini file."""

    @property
    def flag(self) -> str:
        return f"--llm-{self.name.replace('_', '-')}"

    @property
    def ini(self) -> str:
        return f"llm_{self.name}"

    def value(self, config: pytest.Config) -> tuple[Any, str]:
        """What was given, and where: command line over ini over default."""
        given = config.getoption(self.ini)
        if given is not None:
            return given, self.flag
        given = config.getini(self.ini)
        if given:
            return given, f"ini {self.ini}"
        return ([] if self.repeatable else False if self.is_switch else self.default), "default"


CHECKS: Final = (
    "integrity", "duplicates", "load", "resident", "second_copy", "forward", "dtype", "meta", "quantization", "max_memory",
    "release", "second_load", "disk",
)  # fmt: skip
"""The ids of the ready-made checks, in the order of ``pytest_llmmem.checks``."""

OPTIONS: Final = (
    Option("model", "model to load: a folder, a Hub id (org/name@revision) or synthetic:PRESET; repeat for several, "
           "each test with loaded_model or model_checkpoint runs with each", metavar="SOURCE", repeatable=True),
    Option("load", "how the checkpoint becomes a model: a strategy such as default, float16, int8 or offload; repeat for "
           "several, each test with loaded_model runs with each", metavar="STRATEGY", repeatable=True),
    Option("device", "where loaded_model puts the model, such as cuda:0 (default: where the strategy leaves it)",
           metavar="DEVICE"),
    Option("trust_remote_code", "run the code that a checkpoint brings along", is_switch=True),
    Option("isolate", "which tests run in a worker: those with our markers or fixtures, all, or none",
           choices=("marked", "all", "none"), default="marked"),
    Option("worker", "how a worker is made", choices=("auto", "fork", "spawn"), default="auto"),
    Option("timeout", "end an isolated test from outside after so many seconds", metavar="SECONDS"),
    Option("max_ram", "budget of every isolated test without a max_ram marker", metavar="LIMIT"),
    Option("max_vram", "budget of every isolated test without a max_vram marker on each GPU, where there is one",
           metavar="LIMIT"),
    Option("require_gpu", "a test that needs a GPU fails where there is none, instead of being skipped", is_switch=True),
    Option("vram_snapshot", "write torch's history of GPU memory, for pytorch.org/memory_viz, of each test that needs a GPU",
           metavar="FOLDER"),
    Option("max_disk", "what every isolated test without a max_disk marker may write to disk", metavar="LIMIT"),
    Option("on_breach", "a test over its budget may finish (until twice the budget), or is stopped at once",
           choices=("finish", "stop"), default="finish"),
    Option("enforce", "how budgets are enforced where the marker does not say",
           choices=("watch", "rlimit", "cgroup"), default="watch"),
    Option("reserve", "memory that must stay free on the machine, or the growing test is stopped "
           "(default: the larger of 512MiB and 5%%)", metavar="SIZE"),
    Option("scope", "scope of loaded_model: tests that share a model share a worker",
           choices=("function", "class", "module", "session"), default="function"),
    Option("malloc", "glibc's mmap threshold in the worker: as it is, or fixed for peaks that repeat",
           choices=("default", "steady"), default="default"),
    Option("baseline", "file of baselines to compare every test with (default: llm-baselines.json in the root folder, "
           "if it is there)", metavar="FILE"),
    Option("baseline_update", "write what the tests use now as their baselines, and compare nothing", is_switch=True),
    Option("tolerance", "how far a peak may move from its baseline", metavar="TOLERANCE", default="5% + 16MB"),
    Option("repeat", "run each isolated test so many times; the median counts, and the spread is known",
           metavar="N", default="1"),
    Option("skip_check", "of the checks in pytest_llmmem.checks, leave this one out; repeat for several",
           metavar="ID", repeatable=True),
    Option("report", "write the session's record to a file, the kind by its ending: "
           + ", ".join(REPORT_ENDINGS), metavar="PATH", repeatable=True),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The session's settings, checked."""

    model: tuple[str, ...]
    load: tuple[str, ...]
    """Names of strategies; none: each test's own, or ``default``."""
    device: str | None
    """Of ``loaded_model``: ``"cuda:0"``; ``None``: where the strategy leaves it."""
    trust_remote_code: bool
    isolate: Isolate
    worker: WorkerKind
    timeout_s: float | None
    max_ram: Limit | None
    max_vram: Limit | None
    require_gpu: bool
    vram_snapshot: Path | None
    max_disk: Limit | None
    on_breach: Literal["finish", "stop"]
    enforce: Literal["watch", "rlimit", "cgroup"]
    reserve_bytes: int | None
    """``None``: the default of the machine that it runs on."""
    scope: Scope
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


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and its ini twin."""
    group = parser.getgroup("llmmem", "memory of language model loads")
    for option in OPTIONS:
        text = option.help.replace("%%", "%")
        default = f" (default: {option.default})".replace("%", "%%") if option.default else ""
        help_ = option.help + default
        if option.is_switch:
            group.addoption(option.flag, dest=option.ini, action="store_true", default=None, help=help_)
            parser.addini(option.ini, f"{text} (see {option.flag})", type="bool", default=False)
            continue
        group.addoption(
            option.flag,
            dest=option.ini,
            action="append" if option.repeatable else "store",
            choices=option.choices or None,
            metavar=option.metavar,
            default=None,
            help=help_,
        )
        kind: Literal["linelist", "string"] = "linelist" if option.repeatable else "string"
        parser.addini(option.ini, f"{text} (see {option.flag})", type=kind, default=None)


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
        msg = f"{given['baseline_update'][1]}: nothing is measured with {why_none or '--llm-isolate=none'}: leave one of them out"
        raise SettingError(msg)
    baseline = Path(config.invocation_params.dir, values["baseline"]) if values["baseline"] else None
    return Settings(
        model=tuple(values["model"]),
        load=tuple(dict.fromkeys(values["load"])),
        device=_parsed(given["device"], parse_device),
        trust_remote_code=values["trust_remote_code"],
        isolate="none" if why_none else cast("Isolate", values["isolate"]),
        worker=values["worker"],
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
        malloc=values["malloc"],
        baseline=baseline,
        baseline_update=values["baseline_update"],
        tolerance=_checked(given["tolerance"], parse_tolerance),
        repeat=_checked(given["repeat"], parse_count),
        skip_check=_checked(given["skip_check"], parse_checks),
        report=tuple(_report_path(config, path, given["report"][1], baseline) for path in values["report"]),
        why_none=why_none,
    )


def parse_seconds(value: object) -> float:
    """A positive number of seconds. Raises ``ValueError`` with what is accepted."""
    try:
        seconds = float(cast("str", value))
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf") or isinstance(value, bool):
        msg = f"{value!r} is not a timeout: write seconds above zero, like 30 or 0.5"
        raise ValueError(msg)
    return seconds


def parse_count(value: object) -> int:
    """A whole number above zero. Raises ``ValueError`` with what is accepted."""
    if not str(value).isdecimal() or int(str(value)) < 1:
        msg = f"{value!r} is not a number of runs: write 1 or more"
        raise ValueError(msg)
    return int(str(value))


def parse_checks(value: Any) -> tuple[str, ...]:
    """Ids of ready-made checks. Raises ``ValueError`` with those that there are."""
    for name in value:
        if name not in CHECKS:
            msg = f"{name!r} is not a check: write some of {', '.join(CHECKS)}"
            raise ValueError(msg)
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


def _folder(config: pytest.Config, text: str) -> Path:
    """A folder, made if need be. Raises ``ValueError`` when it cannot be."""
    path = Path(config.invocation_params.dir, text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{text!r} cannot be made a folder: {error.strerror}"
        raise ValueError(msg) from None
    return path


def _report_path(config: pytest.Config, text: str, where: str, baseline: Path | None) -> Path:
    from pytest_llmmem.baselines.store import NAME

    path = Path(config.invocation_params.dir, text)
    if path.resolve() == (baseline or config.rootpath / NAME).resolve():
        msg = f"{where}: {text!r} is the file of the baselines: name another one"
        raise SettingError(msg)
    if not text.endswith(REPORT_ENDINGS):
        msg = f"{where}: {text!r} has no ending that says what to write: use one of {', '.join(REPORT_ENDINGS)}"
        raise SettingError(msg)
    try:
        # known before the run, not after an hour of loading
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        path.open("a").close()
        if not existed:
            path.unlink()
    except OSError as error:
        msg = f"{where}: {text!r} cannot be written: {error.strerror}"
        raise SettingError(msg) from None
    return path
