"""The ready-made checks, under the name that users give: ``pytest --pyargs pytest_llmmem.checks --llm-model=SOURCE``."""

from pytest_llmmem.suites.checks import *  # noqa: F403 -- the tests and fixtures that it lists
from pytest_llmmem.suites.promises import *  # noqa: F403 -- as above
