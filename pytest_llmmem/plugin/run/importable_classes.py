"""Classes named by a worker that the receiving process knows too."""

import sys
from importlib.machinery import PathFinder
from typing import Final

import pytest

CONTROLLERS_PATH: Final = pytest.StashKey[list[str]]()
"""``sys.path`` of xdist's controller, which has collected nothing; only there in xdist's workers."""


def note_path(config: pytest.Config) -> None:
    """Call it before anything is collected: xdist's worker has begun with its controller's path."""
    if hasattr(config, "workerinput"):
        config.stash[CONTROLLERS_PATH] = list(sys.path)


def find_class(config: pytest.Config, module: str, name: str) -> type | None:
    """A class by its names, if it has been imported here, and can be by xdist's controller."""
    found = getattr(sys.modules.get(module), name, None)
    path = config.stash.get(CONTROLLERS_PATH, None)
    if not isinstance(found, type):
        return None
    if path is None:
        return found
    top = module.partition(".")[0]
    known = top in sys.stdlib_module_names or PathFinder.find_spec(top, path) is not None
    return found if known else None
