"""The cache of synthetic checkpoints."""

import os
from pathlib import Path

from pytest_llmmem.core.long_paths import reachable


def cache_folder() -> Path:
    """The folder that keeps them between sessions; it may not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME")
    return reachable((Path(root) if root else Path.home() / ".cache") / "pytest-llmmem")
