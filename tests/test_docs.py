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
        pytest.param(block["code"], id=f"{page.name}-{page.read_text()[: block.start()].count(chr(10)) + 1}")
        for page in PAGES
        for block in BLOCK.finditer(page.read_text())
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


def conftests() -> list[object]:
    return [
        pytest.param(block["code"], id=f"{page.name}-{page.read_text()[: block.start()].count(chr(10)) + 1}")
        for page in PAGES
        for block in BLOCK.finditer(page.read_text())
        if block["before"].startswith("<!-- not run: a conftest")
    ]


@pytest.mark.parametrize("code", conftests())
def test_the_conftest_runs(pytester: pytest.Pytester, code: str) -> None:
    pytester.makeconftest(code)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.in_worker
        def test_fails(): raise ConnectionError("no seat left")
        @pytest.mark.in_worker
        def test_passes(): pass
        """
    )
    reports = ["--llm-report=memory.csv"] if "report_formats" in code else []

    result = pytester.runpytest_subprocess(*reports)

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.no_re_match_line("llmmem: .*(raised|not written)|.*pytest_llmmem_diagnoses raised")
    if reports:
        result.stdout.fnmatch_lines(["*llmmem: what to do*", "*no seat left."])
        assert len((pytester.path / "memory.csv").read_text().splitlines()) == 2
        assert len((pytester.path / "peaks.log").read_text().splitlines()) == 2


def test_the_page_of_the_api_has_every_public_name() -> None:
    import pytest_llmmem

    headings = re.findall(r"^### `(\w+)`$", (ROOT / "docs" / "measure.md").read_text(), re.MULTILINE)

    assert sorted(headings) == sorted(pytest_llmmem.__all__)
    assert {name for name in headings if not getattr(pytest_llmmem, name).__doc__} == set()


def test_pages_and_examples_import_what_is_public() -> None:
    imports = re.compile(r"^ *(?:from|import) (pytest_llmmem\.[\w.]+)", re.MULTILINE)
    sources = (*PAGES, *(ROOT / "examples").rglob("*.py"))

    assert [(source.name, each) for source in sources for each in imports.findall(source.read_text())] == []


def test_the_pages_name_every_option() -> None:
    from pytest_llmmem.plugin.options import OPTIONS

    readme = PAGES[0].read_text()

    assert [option.flag for option in OPTIONS if option.flag not in readme] == []


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
