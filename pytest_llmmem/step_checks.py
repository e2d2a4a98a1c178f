"""The checks of steps, under the name that users give: ``pytest --pyargs pytest_llmmem.step_checks --llm-model=SOURCE``."""

from pytest_llmmem.suites.step_checks import *  # noqa: F403 -- the checks, in the order in which they are written there
