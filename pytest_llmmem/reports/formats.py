"""The built-in formats of a report, by the ending of its file."""

from collections.abc import Callable

from pytest_llmmem.core.records import SessionRecord

Render = Callable[[SessionRecord], str]


def renderers() -> dict[str, Render]:
    """The functions that render each format; their modules are imported when a report is written."""
    from pytest_llmmem.reports import html, json, markdown, trace

    return {"trace.json": trace.render, ".json": json.render, ".html": html.render, ".md": markdown.render}
