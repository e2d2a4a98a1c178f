"""A limit that a user has written, in bytes of this machine."""

from pytest_llmmem import probes
from pytest_llmmem.core.budgets import Budget, Limit, parse_limit
from pytest_llmmem.probes import devices


def ram_budget(value: object) -> tuple[Budget, ...]:
    """Of ``max_ram``; none for ``None``. Raises ``ValueError``."""
    if value is None:
        return ()
    limit = parse_limit(value)
    return (Budget(kind="max_ram", limit=limit, limit_bytes=limit_bytes(limit)),)


def vram_budgets(value: object) -> tuple[Budget, ...]:
    """Of ``max_vram``, for each GPU; none for ``None``. Raises ``ValueError``, also where there is no GPU."""
    if value is None:
        return ()
    limit, found = parse_limit(value), devices.find()
    if not found.devices:
        msg = f"needs a GPU: {found.why_none}"
        raise ValueError(msg)
    return tuple(
        Budget(
            kind="max_vram",
            limit=limit,
            limit_bytes=limit_bytes(limit, device_bytes=device.total_bytes),
            count="reserved",
            device=device.name,
        )
        for device in found.devices
    )


def limit_bytes(limit: Limit, *, device_bytes: int | None = None) -> int:
    """Bytes of a limit where no checkpoint is known; ``device_bytes`` is ``None`` when it is of the host's memory.

    Raises ``ValueError`` with the fix when one of its terms is not known here.
    """
    if limit.needs_model:
        msg = f"{limit.text!r} is in terms of a checkpoint, and none is known here: write a size like '8GB'"
        raise ValueError(msg)
    other, fix = ("device", "of the host write '50% host'")
    if device_bytes is not None:
        other, fix = ("host", "of a GPU write '80% device'")
    if other in limit.terms:
        msg = f"{limit.text!r} is a share of the other memory: for memory {fix}"
        raise ValueError(msg)
    if device_bytes is not None:
        return limit.bytes({"device": device_bytes})
    return limit.bytes({"host": probes.host_memory().total_bytes})
