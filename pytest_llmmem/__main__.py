"""``python -m pytest_llmmem`` is ``llmmem``."""

from pytest_llmmem.cli import main

main()
