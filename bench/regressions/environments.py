"""Virtual environments with old versions of transformers, which share the torch of the project's environment."""

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from cases import ENVIRONMENTS, WITHOUT_TOKENIZERS

PROJECT = Path(__file__).parents[2]
SITE = Path(str(distribution("torch").locate_file("")))
SHARED = ("torch", "torchgen", "functorch", f"torch-{distribution('torch').version}.dist-info")

BESIDE_TOKENIZERS = ("filelock", "huggingface_hub<0.24", "packaging", "regex", "requests", "sacremoses", "tqdm")
"""What transformers 4.18 and 4.19 need otherwise."""


def environment(version: str, folder: Path) -> Path:
    """The interpreter that has this version of transformers; its environment is made once."""
    made = folder / version
    python = made / "bin/python"
    ready = made / "ready"
    if ready.exists():
        return python
    run(sys.executable, "-m", "venv", "--clear", made)
    share_torch(made)
    others = ENVIRONMENTS[version]
    if version in WITHOUT_TOKENIZERS:
        install(python, "-e", PROJECT, *others, *BESIDE_TOKENIZERS)
        install(python, "--no-deps", f"transformers=={version}")
    else:
        install(python, "-e", PROJECT, *others, f"transformers=={version}")
    ready.touch()
    return python


def share_torch(made: Path) -> None:
    """Let an environment import torch without a copy of its own, and pip see that it is there."""
    shared = made / "shared"
    shared.mkdir()
    for name in SHARED:
        if (SITE / name).exists():
            shared.joinpath(name).symlink_to(SITE / name)
    (packages,) = made.glob("lib/python*/site-packages")
    packages.joinpath("shared.pth").write_text(f"{shared}\n")


def install(python: Path, *requirements: object) -> None:
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)


def run(*command: object) -> None:
    """Run a command, and show its output only when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
