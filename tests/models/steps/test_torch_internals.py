"""Private names of torch and transformers are in one module, so that one file has to follow their next version."""

from pathlib import Path

import pytest_llmmem.models.steps

FOLDER = Path(pytest_llmmem.models.steps.__file__).parent


def test_private_names_are_in_one_module() -> None:
    with_private = {path.name for path in FOLDER.glob("*.py") if "SLF001" in path.read_text(encoding="utf-8")}

    assert with_private == {"torch_internals.py"}
