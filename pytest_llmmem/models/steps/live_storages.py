"""The storages that exist, by their address, until they are released."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from pytest_llmmem.models.steps.storages import Storage
from pytest_llmmem.models.steps.torch_internals import storage_key


class LiveStorages:
    """The record of each storage that exists."""

    def __init__(self) -> None:
        self._alive: dict[int, tuple[weakref.ref[Any], Storage]] = {}

    def __iter__(self) -> Iterator[Storage]:
        return (storage for _, storage in self._alive.values())

    def find(self, memory: Any) -> Storage | None:
        """The record of torch's storage; ``None`` for one that was not added."""
        known = self._alive.get(storage_key(memory))
        # another storage may have the address of one that has just been released
        return None if known is None or known[0]() is None else known[1]

    def pop(self, memory: Any) -> Storage | None:
        """Forget torch's storage, which still exists, and return its record; ``None`` for one that was not added."""
        known = self._alive.pop(storage_key(memory), None)
        return None if known is None else known[1]

    def add(self, memory: Any, storage: Storage, released: Callable[[], None]) -> None:
        """Follow torch's storage, and call ``released`` at its end."""
        key = storage_key(memory)

        def gone(reference: weakref.ref[Any]) -> None:
            released()
            if (now := self._alive.get(key)) is not None and now[0] is reference:
                del self._alive[key]

        self._alive[key] = weakref.ref(memory, gone), storage
