"""Our markers. Each is a class: its signature is the parser, and with its docstring the line of ``options.MARKERS``."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, cast

import pytest

from pytest_llmmem.baselines.measures import parse_only
from pytest_llmmem.baselines.tolerance import Tolerance, parse_tolerance
from pytest_llmmem.core.budgets import Count, Enforce, OnBreach
from pytest_llmmem.core.errors import MarkerError
from pytest_llmmem.core.growth import check_calls
from pytest_llmmem.core.limits import Limit, parse_limit
from pytest_llmmem.core.sizes import parse_seconds
from pytest_llmmem.core.vram import parse_device
from pytest_llmmem.plugin.settings import Scope, parse_ranks

Per = Literal["rank"] | None
"""Whether a budget is of each rank by itself; ``None``: of all together."""


class Marker:
    """Base class of the markers: it is read from the closest marker of an item. An error names the marker and the item."""

    name: ClassVar[str]

    @classmethod
    def of(cls, item: pytest.Item) -> Self | None:
        """The item's closest marker of this kind. Raises ``MarkerError`` when it cannot be used."""
        mark = item.get_closest_marker(cls.name)
        if mark is None:
            return None
        signature = inspect.signature(cls.parse)
        try:
            signature.bind(*mark.args, **mark.kwargs)
            return cls.parse(*mark.args, **mark.kwargs)
        except TypeError as error:
            msg = f"{cls.name}: {error}: write {cls.usage()}"
            raise MarkerError(msg) from None
        except ValueError as error:
            msg = f"{cls.name}: {error}"
            raise MarkerError(msg) from None

    @classmethod
    def parse(cls, *args: object, **kwargs: object) -> Self:
        raise NotImplementedError

    @classmethod
    def usage(cls) -> str:
        """``name(signature)``, as a user writes it."""
        parameters = inspect.signature(cls.parse).parameters.values()
        plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
        return f"{cls.name}{inspect.Signature(plain)}"


@dataclass(frozen=True, slots=True)
class MaxRam(Marker):
    """run the test in a measured worker and fail it when its memory grows beyond limit."""

    name: ClassVar[str] = "max_ram"

    limit: Limit
    count: Count
    on_breach: OnBreach | None
    enforce: Enforce | None
    per: Per

    @classmethod
    def parse(  # type: ignore[override]  # the signature is the marker's own
        cls,
        limit: object,
        *,
        count: str = "unreclaimable",
        on_breach: str | None = None,
        enforce: str | None = None,
        per: str | None = None,
    ) -> Self:
        return cls(
            parse_limit(limit),
            cast("Count", _one_of("count", count, "unreclaimable", "resident")),
            cast("OnBreach | None", _one_of("on_breach", on_breach, "finish", "stop", None)),
            cast("Enforce | None", _one_of("enforce", enforce, "watch", "rlimit", "cgroup", "job", None)),
            cast("Per", _one_of("per", per, "rank", None)),
        )


@dataclass(frozen=True, slots=True)
class MaxVram(Marker):
    """run the test in a measured worker and fail it when it uses more GPU memory than limit; skip it without a GPU."""

    name: ClassVar[str] = "max_vram"

    limit: Limit
    device: str | None
    """``None``: that of ``--llm-device``, or else every device, each by itself."""
    count: Count
    on_breach: OnBreach
    enforce: Enforce

    @classmethod
    def parse(  # type: ignore[override]  # the signature is the marker's own
        cls,
        limit: object,
        *,
        device: str | None = None,
        count: str = "reserved",
        on_breach: str | None = None,
        enforce: str | None = None,
        per: str | None = None,
    ) -> Self:
        _one_of("per", per, "rank", None)
        _one_of("on_breach", on_breach, "finish", "stop", None)
        _one_of("enforce", enforce, "watch", "cap", None)
        _one_of("count", count, "reserved", "allocated", "device")
        if on_breach == "stop" and enforce != "cap" and count != "device":
            msg = (
                "on_breach='stop' needs count='device', which is watched from outside, or enforce='cap': "
                "torch's own counters are read when a phase has ended"
            )
            raise ValueError(msg)
        return cls(
            parse_limit(limit),
            None if device is None else parse_device(device),
            cast("Count", count),
            cast("OnBreach", on_breach or "finish"),
            cast("Enforce", enforce or "watch"),
        )


@dataclass(frozen=True, slots=True)
class MaxDisk(Marker):
    """run the test in a measured worker and fail it when it writes more than limit to disk."""

    name: ClassVar[str] = "max_disk"

    limit: Limit
    on_breach: OnBreach | None

    @classmethod
    def parse(  # type: ignore[override]  # the signature is the marker's own
        cls, limit: object, *, on_breach: str | None = None
    ) -> Self:
        return cls(parse_limit(limit), cast("OnBreach | None", _one_of("on_breach", on_breach, "finish", "stop", None)))


@dataclass(frozen=True, slots=True)
class MaxGrowth(Marker):
    """call the test warmup times and then repeat times more, and fail it when a call leaves more memory than limit."""

    name: ClassVar[str] = "max_growth"

    limit: Limit
    repeat: int
    warmup: int

    @classmethod
    def parse(  # type: ignore[override]  # the signature is the marker's own
        cls, limit: object, *, repeat: int = 20, warmup: int = 3
    ) -> Self:
        check_calls(repeat, warmup)
        return cls(parse_limit(limit), repeat, warmup)


@dataclass(frozen=True, slots=True)
class LlmLoad(Marker):
    """load the model of this test by strategy, or by a function; further arguments are from_pretrained's, or the function's."""

    name: ClassVar[str] = "llm_load"

    strategy: str
    """The loader's own name where there is one."""
    options: Mapping[str, Any]
    loader: Callable[..., Any] | None

    @classmethod
    def parse(  # type: ignore[override]  # the signature is the marker's own
        cls, strategy: str = "default", *, loader: Any = None, **arguments: Any
    ) -> Self:
        if not isinstance(strategy, str):
            msg = f"{strategy!r} is not the name of a strategy: write one like 'default', 'float16' or 'int8'"
            raise ValueError(msg)  # noqa: TRY004 -- one error type for every bad marker
        if loader is None:
            from pytest_llmmem.models.loading.arguments import check_values

            check_values(arguments)
            return cls(strategy, arguments, None)
        from pytest_llmmem.models.loading.own_loader import check_options, checked_loader, import_loader, name_of

        if strategy != "default":
            msg = f"{strategy!r} and loader= are two ways to load: leave one of them out"
            raise ValueError(msg)
        function = import_loader(loader) if isinstance(loader, str) else checked_loader(loader)
        check_options(function, arguments)
        return cls(name_of(function), arguments, function)


@dataclass(frozen=True, slots=True)
class LlmBaseline(Marker):
    """compare the test with its baseline by a tolerance, or by measures, of its own."""

    name: ClassVar[str] = "llm_baseline"

    tolerance: Tolerance | None
    only: tuple[str, ...] | None

    @classmethod
    def parse(  # type: ignore[override]  # the signature is the marker's own
        cls, *, tolerance: object = None, only: object = None
    ) -> Self:
        return cls(
            None if tolerance is None else parse_tolerance(tolerance),
            None if only is None else parse_only(only),
        )


@dataclass(frozen=True, slots=True)
class InWorker(Marker):
    """run the test in a measured worker, or in so many ranks; tests of one scope share it; end it after timeout seconds."""

    name: ClassVar[str] = "in_worker"

    scope: Scope
    timeout_s: float | None
    ranks: int | None
    """``None``: as many as ``--llm-ranks`` says, where the test needs them."""

    @classmethod
    def parse(  # type: ignore[override]  # the signature is the marker's own
        cls, *, scope: str = "function", timeout: object = None, ranks: object = None
    ) -> Self:
        count = None if ranks is None else parse_ranks(ranks)
        if scope != "function" and count not in {None, 1}:
            msg = f"scope={scope!r} and ranks={count}: the workers of a test in ranks serve that test alone: leave scope out"
            raise ValueError(msg)
        return cls(
            cast("Scope", _one_of("scope", scope, "function", "class", "module", "session")),
            None if timeout is None else parse_seconds(timeout),
            count,
        )


def _one_of(what: str, value: object, *accepted: object) -> object:
    if value not in accepted:
        named = ", ".join(repr(item) for item in accepted if item is not None)
        msg = f"{what}={value!r} is not one of {named}"
        raise ValueError(msg)
    return value
