"""A team's own formats of ``--llm-report``, by the ending of the file, and the check of that ending."""

from typing import TYPE_CHECKING

import pytest

from pytest_llmmem.core.errors import SettingError
from pytest_llmmem.plugin.options import REPORT_SUFFIXES

if TYPE_CHECKING:
    from pytest_llmmem.reports.formats import Render


def own_formats(config: pytest.Config) -> "dict[str, Render]":
    """Their renderers. Raises ``SettingError`` for an ending that is none, or is taken."""
    own: dict[str, Render] = {}
    for given in config.hook.pytest_llmmem_report_formats():
        for ending, render in given.items():
            if not ending.startswith("."):
                msg = f"pytest_llmmem_report_formats: {ending!r} is not the ending of a file: write one like '.csv'"
                raise SettingError(msg)
            if ending in own or ending.endswith(REPORT_SUFFIXES):
                msg = f"pytest_llmmem_report_formats: {ending!r} is taken: choose another ending"
                raise SettingError(msg)
            own[ending] = render
    return own


def check_suffix(config: pytest.Config, text: str, where: str) -> None:
    """Check the ending of a file. Raises ``SettingError`` for an unknown one."""
    endings = (*REPORT_SUFFIXES, *own_formats(config))
    if not text.endswith(endings):
        msg = f"{where}: {text!r} has no ending that says what to write: use one of {', '.join(endings)}"
        raise SettingError(msg)
