"""Limits that a user writes outside of a marker, in bytes of this machine."""

from dataclasses import replace
from typing import Final

from pytest_llmmem import probes
from pytest_llmmem.core.budgets import Budget
from pytest_llmmem.core.limits import parse_limit
from pytest_llmmem.core.terms import Terms
from pytest_llmmem.probes import devices

_NO_CHECKPOINT: Final = ", and none is known here: write a size like '8GB'"


def terms_of_machine() -> Terms:
    """Terms of a limit where no checkpoint is known."""
    return Terms(host_bytes=probes.host_memory().total_bytes, why_no_model=_NO_CHECKPOINT)


def ram_budget(value: object) -> tuple[Budget, ...]:
    """The budget of ``max_ram``; none for ``None``. Raises ``ValueError``."""
    if value is None:
        return ()
    limit = parse_limit(value)
    return (Budget(kind="max_ram", limit=limit, limit_bytes=terms_of_machine().bytes(limit)),)


def vram_budgets(value: object) -> tuple[Budget, ...]:
    """The budgets of ``max_vram``, one for each GPU; none for ``None``. Raises ``ValueError``, also without a GPU."""
    if value is None:
        return ()
    limit, found = parse_limit(value), devices.find()
    if not found.devices:
        msg = f"needs a GPU: {found.why_none}"
        raise ValueError(msg)
    if "host" in limit.terms:
        msg = f"{limit.text!r} is a share of the host: for memory of a GPU write '80% device'"
        raise ValueError(msg)
    terms = terms_of_machine()
    return tuple(
        Budget(
            kind="max_vram",
            limit=limit,
            limit_bytes=replace(terms, device_bytes=device.total_bytes).bytes(limit),
            count="reserved",
            device=device.name,
        )
        for device in found.devices
    )
