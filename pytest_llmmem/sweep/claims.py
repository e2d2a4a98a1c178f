"""The memory that a cell reserves on its node: what its processes take, and what its tests may add."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.core.sizes import format_size
from pytest_llmmem.core.terms import terms_of
from pytest_llmmem.sweep.sweep_file import SweepFile

ASSUMED_BASE_BYTES: Final = 1_000_000_000
"""Base memory of an environment that has not been measured."""

_MARGIN: Final = 1.1
_SLACK_BYTES: Final = 200_000_000
"""Memory that the ready-made checks allow a load beside its weights."""
_UNPREDICTED: Final = 3
"""Times the weights, for a load that cannot be predicted: two whole copies and a shard are less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Memory that a cell reserves, in bytes."""

    memory_bytes: int
    """Memory of the node that is reserved."""
    growth_bytes: int
    """The part that each test may add."""
    note: str = ""
    """The replacement for the prediction; empty when there was a prediction."""


def claim_of(load: str, sweep: SweepFile, *, base_bytes: int, look: Mapping[str, Any]) -> Claim:
    """The claim of a cell: the base of its environment, and the budget of its tests.

    The budget is ``max_ram``, or what ``look``, the result of ``llmmem estimate --json``, predicts with a margin. Raises
    ``SettingError`` when the file's ``memory`` leaves the tests nothing, or ``max_ram`` cannot be evaluated.
    """
    document = _document(look)
    growth_bytes, note = _growth(load, sweep, document)
    if sweep.memory_bytes is None:
        return Claim(memory_bytes=base_bytes + growth_bytes, growth_bytes=growth_bytes, note=note)
    left_bytes = sweep.memory_bytes - base_bytes
    if left_bytes <= 0:
        msg = f"memory is {format_size(sweep.memory_bytes)}, and pytest alone takes {format_size(base_bytes)}: raise it"
        raise SettingError(msg)
    return Claim(memory_bytes=sweep.memory_bytes, growth_bytes=left_bytes)


def _growth(load: str, sweep: SweepFile, document: Mapping[str, Any] | None) -> tuple[int, str]:
    """Memory that a test may add, and a note about its source if it is not a prediction."""
    if sweep.max_ram:
        try:
            return sweep.max_ram.bytes(_terms(document) if document else {}), ""
        except KeyError as error:
            msg = f"max_ram = {sweep.max_ram.text!r}: {error} is not known here: write a size, like '8GB'"
            raise SettingError(msg) from None
    if document is None:
        return _SLACK_BYTES, "not predicted, since its headers cannot be read"
    found: Mapping[str, Any] = next((each for each in document["loads"] if each["load"] == load), {})
    sizes = [found.get(name) for name in ("peak_bytes", "peak_resident_bytes", "forward_resident_bytes")]
    known = [size for size in sizes if size is not None]
    predicted, note = max(known, default=0), ""
    if len(known) < len(sizes):
        predicted = _UNPREDICTED * document["weights_bytes"]
        note = f"not predicted: {_UNPREDICTED} times its weights are assumed"
    return round(_MARGIN * sweep.ranks * predicted) + _SLACK_BYTES, note


def _terms(document: Mapping[str, Any]) -> dict[str, int]:
    return terms_of(
        weights=document["weights_bytes"],
        shard=document["largest_shard_bytes"],
        largest_layer=document["largest_layer_bytes"],
        parameters=document["parameters"],
    )


def _document(look: Mapping[str, Any]) -> Mapping[str, Any] | None:
    try:
        document = json.loads(look["stdout"])
    except ValueError:
        return None
    return document if isinstance(document, dict) and "loads" in document else None
