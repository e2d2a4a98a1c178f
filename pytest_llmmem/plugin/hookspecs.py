"""Hooks that a team's ``conftest.py`` may implement."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from pytest_llmmem.core.records import SessionRecord, TestRecord
    from pytest_llmmem.diagnosis import Diagnosis, Facts
    from pytest_llmmem.models.loading.strategy import Strategy


def pytest_llmmem_strategies() -> "Sequence[Strategy]":
    """Return strategies of your own for ``--llm-load`` and ``@pytest.mark.llm_load``; names must not be taken."""
    raise NotImplementedError  # a specification, never called


def pytest_llmmem_diagnoses() -> "Sequence[Callable[[Facts], Diagnosis | None]]":
    """Return functions that recognize failures of your own by their facts; they are asked before the built-in ones."""
    raise NotImplementedError


def pytest_llmmem_report_formats() -> "Mapping[str, Callable[[SessionRecord], str]]":
    """Return renderers for ``--llm-report``, each under the ending of its files, such as ``".csv"``."""
    raise NotImplementedError


def pytest_llmmem_record(record: "TestRecord", config: "pytest.Config") -> None:
    """Hear of each measured test as it ends, where the session reports: in xdist's controller too."""
    raise NotImplementedError
