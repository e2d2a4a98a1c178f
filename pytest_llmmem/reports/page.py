"""A page that needs nothing else: its script draws, sorts and formats the data that it carries. Charts are uPlot's.

uPlot is bundled unchanged under ``assets/``, with its license.
"""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, Final

_ASSETS: Final = Path(__file__).parent / "assets"


def fill_page(
    template: str, *, words: Mapping[str, str], data: Any, styles: Sequence[str] = (), scripts: Sequence[str]
) -> str:
    """The whole page, to be written as UTF-8: a template of ``assets/`` with its words, its data, and files from there."""
    return Template(_asset(template)).substitute(
        {name: html.escape(text) for name, text in words.items()},
        style="".join(map(_asset, ("uPlot.min.css", "page.css", *styles))),
        license=_asset("uPlot.LICENSE"),
        library=_asset("uPlot.iife.min.js"),
        script="".join(map(_asset, ("chart.js", "detail.js", "frame.js", *scripts))),
        # "<" is the only character that could end a script element
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    )


def _asset(name: str) -> str:
    return _ASSETS.joinpath(name).read_text(encoding="utf-8")
