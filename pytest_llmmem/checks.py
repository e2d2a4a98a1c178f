"""The ready-made checks, under the name that users give: ``pytest --pyargs pytest_llmmem.checks --llm-model=SOURCE``."""

from pytest_llmmem.suites.checks import *  # noqa: F403 -- the checks; they run in this order
from pytest_llmmem.suites.promises import *  # noqa: F403 -- as above
from pytest_llmmem.suites.rank_checks import *  # noqa: F403 -- as above
from pytest_llmmem.suites.repeated_loads import *  # noqa: F403 -- as above
