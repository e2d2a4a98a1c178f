"""Writes a report, in the format that the ending of its file selects."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmmem.plugin.own_formats import own_formats

if TYPE_CHECKING:
    from pytest_llmmem.core.records import SessionRecord


def write(config: pytest.Config, path: Path, record: "SessionRecord") -> str:
    """Write a report, and return the line about it: a renderer of the team's own may raise anything."""
    from pytest_llmmem.reports.formats import renderers

    builtin = renderers()
    known = {**builtin, **own_formats(config)}
    ending = next(ending for ending in known if path.name.endswith(ending))
    try:
        # an exception's text may hold what no encoding has
        path.write_text(known[ending](record), encoding="utf-8", errors="backslashreplace")
    except Exception as error:
        if ending in builtin:
            raise
        return f"llmmem: {path} is not written: the renderer of {ending} raised {type(error).__name__}: {error}"
    return f"llmmem: wrote {path}"
