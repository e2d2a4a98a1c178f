"""The endings that are accepted at the start of a session, and the renderers that are imported at its end."""

from pytest_llmmem.plugin.options import REPORT_SUFFIXES
from pytest_llmmem.reports.formats import renderers


def test_every_accepted_ending_has_a_renderer_and_the_first_match_is_the_longest() -> None:
    assert tuple(renderers()) == REPORT_SUFFIXES
    for number, ending in enumerate(REPORT_SUFFIXES):
        assert not ending.endswith(REPORT_SUFFIXES[:number])
