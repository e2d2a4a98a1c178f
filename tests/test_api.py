"""The public API: everything is imported from the package, and nothing before it is used."""

import subprocess
import sys

import pytest

import pytest_llmmem

HEAVY = {"torch", "transformers", "accelerate", "numpy", "psutil", "pynvml", "jinja2"}


def imported_by(statement: str) -> set[str]:
    script = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_package_costs_nothing() -> None:
    modules = imported_by("import pytest_llmmem")

    assert {name for name in modules if name.startswith("pytest_llmmem")} == {
        "pytest_llmmem", "pytest_llmmem.core", "pytest_llmmem.core.errors", "pytest_llmmem.core.printable",
    }  # fmt: skip
    assert not {*HEAVY, "pytest", "multiprocessing", "subprocess"} & modules


def test_all_of_it_can_be_imported_without_what_it_measures() -> None:
    modules = imported_by("from pytest_llmmem import *")

    assert not {*HEAVY, "pytest"} & modules


def test_measure_is_the_function_whatever_was_imported_before() -> None:
    import pytest_llmmem.measuring.measure

    assert callable(pytest_llmmem.measure)
    assert pytest_llmmem.measure is pytest_llmmem.measuring.measure.measure


def test_every_name_is_there_and_listed() -> None:
    assert set(pytest_llmmem.__all__) <= set(dir(pytest_llmmem))
    assert pytest_llmmem.__version__.count(".") >= 1
    assert list(pytest_llmmem.__all__) == sorted(pytest_llmmem.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pytest_llmmem' has no attribute 'mesure'"):
        pytest_llmmem.mesure  # noqa: B018 -- it is asked for
