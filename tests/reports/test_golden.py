"""Each text format of one session, letter for letter. After a wanted change: ``python -m tests.reports.records``, and read the difference."""

import pytest

from tests.reports.records import FOLDER, GOLDEN, sample


@pytest.mark.parametrize("name", GOLDEN)
def test_the_format_is_as_it_was_agreed(name: str) -> None:
    assert GOLDEN[name](sample()) == FOLDER.joinpath(name).read_text(encoding="utf-8")


def test_every_golden_file_is_rendered() -> None:
    assert {file.name for file in FOLDER.iterdir()} == set(GOLDEN)
