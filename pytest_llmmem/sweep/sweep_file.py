"""``sweep.toml``: what to run, read into a frozen value. Each complaint names the file, the line, the key and the fix."""

import re
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from pytest_llmmem.core.check_ids import CHECKS
from pytest_llmmem.core.errors import SettingError, SourceError
from pytest_llmmem.core.limits import Limit, parse_limit
from pytest_llmmem.core.long_paths import resolved
from pytest_llmmem.core.sizes import parse_size
from pytest_llmmem.models.loading.strategies import STRATEGIES
from pytest_llmmem.models.sources.source import Source, parse_source
from pytest_llmmem.sweep.toml_lines import line_of

T = TypeVar("T")

_NAME: Final = re.compile(r"\w[\w.-]*")
_KEYS: Final = (
    "models", "loads", "checks", "tests", "arguments", "max_ram", "memory", "timeout", "cell_timeout", "cpus", "gpus",
    "ranks", "env",
)  # fmt: skip
_KEYS_OF_ENVIRONMENT: Final = ("python", "variables")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An interpreter that is ready to run the cells, with all that they need installed."""

    name: str
    python: str
    """An absolute path, on every node."""
    variables: Mapping[str, str]
    """Added to the environment of its processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFile:
    """A checked ``sweep.toml``."""

    folder: str
    """Folder of the file; absolute."""
    models: tuple[Source, ...]
    loads: tuple[str, ...]
    environments: tuple[Environment, ...]
    checks: tuple[str, ...]
    """Ids of ready-made checks; empty: all of them. Not used when there are tests."""
    tests: tuple[str, ...]
    """Tests that pytest runs instead of the ready-made checks."""
    arguments: tuple[str, ...]
    """Further arguments of pytest."""
    max_ram: Limit | None
    """Budget of each test without a marker; ``None``: what its cell has claimed."""
    memory_bytes: int | None
    """Memory that each cell claims, base included; ``None``: as predicted."""
    timeout_s: float
    """Timeout of each test."""
    cell_timeout_s: float
    cpus: float
    gpus: float
    ranks: int


def read_sweep_file(path: Path) -> SweepFile:
    """Read and check a file. Raises ``SettingError``."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        msg = f"{path}: it cannot be read ({why}): name a sweep.toml, or write one with 'llmmem sweep --init'"
        raise SettingError(msg) from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).partition(" (at ")
        found = re.match(r"line (\d+)", place)
        line = found[1] if found else len(text.splitlines())
        msg = f"{path} line {line}: this is no TOML ({what}): see 'llmmem sweep --init' for an example"
        raise SettingError(msg) from None
    return _Reader(path, text, document).sweep()


class _Reader:
    """The document being checked, and its text, for messages."""

    def __init__(self, path: Path, text: str, document: Mapping[str, Any]) -> None:
        self._path = path
        self._text = text
        self._document = document

    def sweep(self) -> SweepFile:
        self._refuse_unknown((), self._document, _KEYS)
        tests = self._texts("tests", default=())
        return SweepFile(
            folder=str(resolved(self._path.parent)),
            models=self._models(),
            loads=self._loads(any_name=bool(tests)),
            environments=self._environments(),
            checks=self._checks(tests),
            tests=tests,
            arguments=self._texts("arguments", default=()),
            max_ram=self._checked("max_ram", _limit, default=None),
            memory_bytes=self._checked("memory", _size, default=None),
            timeout_s=self._checked("timeout", _seconds, default=600.0),
            cell_timeout_s=self._checked("cell_timeout", _seconds, default=3600.0),
            cpus=self._checked("cpus", _above_zero, default=1.0),
            gpus=self._checked("gpus", _not_negative, default=0.0),
            ranks=self._checked("ranks", _count, default=1),
        )

    def _models(self) -> tuple[Source, ...]:
        texts = self._texts("models")
        if not texts:
            self._refuse(
                ("models",), "'models' is missing or empty", 'write some, like models = ["synthetic:tiny-llama"]'
            )
        found = []
        for text in dict.fromkeys(texts):
            try:
                found.append(parse_source(text, base=resolved(self._path.parent)))
            except SourceError as error:
                self._refuse(
                    ("models",), str(error).removeprefix(f"--llm-model={text}: "), within=text, what=f"models: {text!r}"
                )
        return tuple(found)

    def _loads(self, *, any_name: bool) -> tuple[str, ...]:
        loads = self._texts("loads", default=("default",))
        for load in loads:
            if not any_name and load not in STRATEGIES:
                fix = f"write some of {', '.join(STRATEGIES)}; one of your own needs 'tests', whose conftest.py registers it"
                self._refuse(("loads",), f"{load!r} is not a strategy", fix, within=load)
        if not loads:
            self._refuse(("loads",), "'loads' is empty", 'write some, like loads = ["default"], or leave it out')
        return tuple(dict.fromkeys(loads))

    def _checks(self, tests: Sequence[str]) -> tuple[str, ...]:
        checks = self._texts("checks", default=())
        if checks and tests:
            self._refuse(
                ("checks",), "a cell runs ready-made checks or tests of yours", "leave 'checks' or 'tests' out"
            )
        for check in checks:
            if check not in CHECKS:
                self._refuse(
                    ("checks",), f"{check!r} is not a check", f"write some of {', '.join(CHECKS)}", within=check
                )
        return checks

    def _environments(self) -> tuple[Environment, ...]:
        tables = self._document.get("env", {"current": {}})
        if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()) or not tables:
            self._refuse(
                ("env",), "'env' is not a table of environments", 'write [env.NAME] with python = "…" below it'
            )
        return tuple(self._environment(name, table) for name, table in tables.items())

    def _environment(self, name: str, table: Mapping[str, Any]) -> Environment:
        where = ("env", name)
        if not _NAME.fullmatch(name):
            self._refuse(where, f"{name!r} is not a name of an environment", "use letters, digits, '-', '_' and '.'")
        self._refuse_unknown(where, table, _KEYS_OF_ENVIRONMENT)
        python, variables = table.get("python", sys.executable), table.get("variables", {})
        if not isinstance(python, str) or not python:
            self._refuse(
                (*where, "python"), f"{python!r} is not a path", "name an interpreter, like '/envs/new/bin/python'"
            )
        if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
            fix = 'write texts, like variables = { HF_HOME = "/data/hf" }'
            self._refuse((*where, "variables"), f"{variables!r} are not environment variables", fix)
        # not resolved: an environment's interpreter is a link, and its place is what makes the environment
        path = Path(resolved(self._path.parent), Path(python).expanduser())
        return Environment(name=name, python=str(path), variables=variables)

    def _texts(self, key: str, *, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        value = self._document.get(key, list(default))
        if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
            self._refuse((key,), f"{value!r} is not a list of texts", f'write {key} = ["…", "…"]')
        return tuple(value)

    def _checked(self, key: str, parse: Callable[[object], T], *, default: T) -> T:
        if key not in self._document:
            return default
        try:
            return parse(self._document[key])
        except ValueError as error:
            self._refuse((key,), str(error))

    def _refuse_unknown(self, where: tuple[str, ...], table: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in table:
            if key not in known:
                self._refuse((*where, key), f"there is no key {key!r} here", f"write one of {', '.join(known)}")

    def _refuse(
        self, key: tuple[str, ...], problem: str, fix: str = "", *, within: str | None = None, what: str | None = None
    ) -> NoReturn:
        msg = f"{self._path} line {line_of(self._text, key, within=within)}: {what or '.'.join(key)}: {problem}"
        raise SettingError(f"{msg}: {fix}" if fix else msg)


def _limit(value: object) -> Limit:
    limit = parse_limit(value)
    if limit.is_share:
        msg = f"{value!r} is another size on each node: write a size, or an expression like '1.1 * weights + 1GB'"
        raise ValueError(msg)
    return limit


def _size(value: object) -> int:
    if not isinstance(value, str):
        msg = f'{value!r} is not a memory size: write a text like "8GB"'
        raise ValueError(msg)  # noqa: TRY004 -- one kind of complaint
    return parse_size(value)


def _seconds(value: object) -> float:
    return _number(value, "seconds above zero, like 600", above=0)


def _above_zero(value: object) -> float:
    return _number(value, "a number above zero, like 1", above=0)


def _not_negative(value: object) -> float:
    return _number(value, "0 or more, like 1 or 0.5", above=-1e-9)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        msg = f"{value!r} is not a count: write a whole number above zero, like 2"
        raise ValueError(msg)
    return value


def _number(value: object, accepted: str, *, above: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not above < value < float("inf"):
        msg = f"{value!r} cannot be used: write {accepted}"
        raise ValueError(msg)
    return float(value)
