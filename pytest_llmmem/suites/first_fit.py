"""One test for ``llmmem try``: which load of a model is the first that stays within ``--llm-max-ram``."""

from pytest_llmmem.models.loading.loaded import LoadedModel


def test_fit(first_load_that_fits: LoadedModel) -> None:
    """Some load fits, and leaves no weight without numbers."""
    assert not first_load_that_fits.nbytes_on("meta")
