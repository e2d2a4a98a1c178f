"""Every python block of the README and the docs runs, as a test file of its own."""

import re
from pathlib import Path

import pytest

from tests.conftest import needs

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"(?P<before>[^\n]*)\n+```python\n(?P<code>.*?)```", re.DOTALL)


def blocks() -> list[object]:
    return [
        pytest.param(
            block["code"], id=f"{page.name}-{page.read_text(encoding='utf-8')[: block.start()].count(chr(10)) + 1}"
        )
        for page in PAGES
        for block in BLOCK.finditer(page.read_text(encoding="utf-8"))
        if not block["before"].startswith("<!-- not run: ")
    ]


@needs("torch", "transformers")
@pytest.mark.parametrize("code", blocks())
def test_the_block_runs(pytester: pytest.Pytester, code: str) -> None:
    pytester.makepyfile(code)

    result = pytester.runpytest_subprocess("--llm-model=synthetic:tiny-llama", "-p", "no:randomly")

    outcomes = result.parseoutcomes()
    assert outcomes.keys() <= {"passed", "xfailed", "warning", "warnings"}
    assert outcomes


def test_the_pages_name_every_option() -> None:
    from pytest_llmmem.plugin.options import OPTIONS

    readme = PAGES[0].read_text(encoding="utf-8")

    assert [option.flag for option in OPTIONS if option.flag not in readme] == []


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
