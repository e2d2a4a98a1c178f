"""The bounds of what is read of a checkpoint."""

from pathlib import Path

import pytest

from pytest_llmmem.models.checkpoints import bounds

DOCS = Path(__file__).parents[3] / "docs" / "models.md"


@pytest.mark.parametrize("name", [name for name in vars(bounds) if name.startswith("MAX_")])
def test_every_bound_is_told_in_the_docs(name: str) -> None:
    told = DOCS.read_text(encoding="utf-8").partition("### Checkpoints from elsewhere")[2].partition("\n## ")[0]

    cells = {word.strip("|,") for line in told.splitlines() if line.startswith("|") for word in line.split()}
    assert f"{getattr(bounds, name):,}" in cells
