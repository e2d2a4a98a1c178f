"""Hooks that a team's ``conftest.py`` may implement."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_llmmem.models.loading.strategies import Strategy


def pytest_llmmem_strategies() -> "Sequence[Strategy]":
    """Return strategies of your own for ``--llm-load`` and ``@pytest.mark.llm_load``; names must not be taken."""
    raise NotImplementedError  # a specification, never called
