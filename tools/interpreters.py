"""Find a Python of a given version: on the PATH, or among those of pyenv, whose shims refuse versions that are not selected."""

import os
import shutil
import subprocess
from pathlib import Path


def find(version: str) -> str | None:
    """A working interpreter for ``"3.13"`` or a path; ``None`` when there is none."""
    if Path(version).is_absolute():
        return version if _runs(version) else None
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    candidates = [shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")]
    return next((str(candidate) for candidate in candidates if candidate and _runs(candidate)), None)


def _runs(interpreter: str | Path) -> bool:
    return subprocess.run([interpreter, "-c", ""], capture_output=True, check=False).returncode == 0
