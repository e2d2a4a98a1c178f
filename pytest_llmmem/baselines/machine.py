"""Machines that share baselines: they are equal in all facts that change a peak. The processor's model does not."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

_KEY: Final = re.compile(
    r"(?P<platform>[^\s-]+)-(?P<machine>\S+)"
    r"(?: torch(?P<torch>\d+\.\d+))?(?: transformers(?P<transformers>\d+\.\d+))? (?P<devices>[^\s.]+)"
)
_VERSION: Final = re.compile(r"\d+\.\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The machine whose baselines are used."""

    key: str
    """The machine's key in the file."""
    differences: str = ""
    """Differences from the machine of this run, ``"torch 2.12, here 2.13"``; empty when it is the same."""

    @property
    def borrowed(self) -> bool:
        return bool(self.differences)

    def __str__(self) -> str:
        return f"{self.key}, borrowed ({self.differences})" if self.borrowed else self.key


def machine_key(environment: Mapping[str, object], devices: Iterable[str]) -> str:
    """``"linux-x86_64 torch2.13 transformers5.23 cpu"``, of a record's environment and device names (``"cuda:0"``).

    A library that is not installed is left out.
    """
    kinds = "+".join(sorted({device.partition(":")[0] for device in devices} - {"cpu"})) or "cpu"
    versions = ((name, _VERSION.match(str(environment.get(name)))) for name in ("torch", "transformers"))
    libraries = (f"{name}{version[0]}" for name, version in versions if version)
    return " ".join((f"{environment.get('platform')}-{environment.get('machine')}", *libraries, kinds))


def nearest(key: str, keys: Iterable[str]) -> Match | None:
    """The key itself, else the key of the most similar machine: processor first, then torch, then transformers.

    ``None`` when there is none of the same platform and device kind: such numbers mean something else.
    """
    keys = sorted(keys)
    if key in keys:
        return Match(key=key)
    here = _KEY.fullmatch(key)
    known = [match for other in keys if (match := _KEY.fullmatch(other))]
    alike = [there for there in known if here and _same_kind(here, there)]
    if here is None or not alike:
        return None
    chosen = min(alike, key=lambda there: _distance(here, there))
    parts = [part for part in ("machine", "torch", "transformers") if chosen[part] != here[part]]
    differences = ", ".join(f"{part} {chosen[part] or 'none'}, here {here[part] or 'none'}" for part in parts)
    return Match(key=chosen[0], differences=differences)


def _same_kind(here: re.Match[str], there: re.Match[str]) -> bool:
    return (here["platform"], here["devices"]) == (there["platform"], there["devices"])


def _distance(here: re.Match[str], there: re.Match[str]) -> tuple[bool, float, float]:
    torch, transformers = (_version_distance(here[name], there[name]) for name in ("torch", "transformers"))
    return here["machine"] != there["machine"], torch, transformers


def _version_distance(here: str | None, there: str | None) -> float:
    """0 for the same; a major version outweighs every minor one; a missing library is farthest."""
    if here == there:
        return 0
    if here is None or there is None:
        return float("inf")
    from packaging.version import Version

    ours, theirs = Version(here), Version(there)
    return abs(1000 * (ours.major - theirs.major) + ours.minor - theirs.minor)
