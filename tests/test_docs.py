"""Every python block of the README and the docs runs, as a test file of its own."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.conftest import needs

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PROJECT_PAGES = tuple(ROOT / name for name in ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"))
REPOSITORY = re.compile(
    r"https://(github|raw\.githubusercontent)\.com/pytest-llmmem/pytest-llmmem/(blob/|tree/)?main/(?P<path>.*)"
)
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


def conftests() -> list[object]:
    return [
        pytest.param(
            block["code"], id=f"{page.name}-{page.read_text(encoding='utf-8')[: block.start()].count(chr(10)) + 1}"
        )
        for page in PAGES
        for block in BLOCK.finditer(page.read_text(encoding="utf-8"))
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
        assert len((pytester.path / "memory.csv").read_text(encoding="utf-8").splitlines()) == 2
        assert len((pytester.path / "peaks.log").read_text(encoding="utf-8").splitlines()) == 2


def test_the_page_of_the_api_has_every_public_name() -> None:
    import pytest_llmmem

    headings = re.findall(r"^### `(\w+)`$", (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(headings) == sorted(pytest_llmmem.__all__)
    assert {name for name in headings if not getattr(pytest_llmmem, name).__doc__} == set()


def test_pages_and_examples_import_what_is_public() -> None:
    suites = r"(?:step_)?checks\b"  # ready-made tests, which are imported to be collected
    imports = re.compile(rf"^ *(?:from|import) (pytest_llmmem\.(?!{suites})[\w.]+)", re.MULTILINE)
    sources = (*PAGES, *(ROOT / "examples").rglob("*.py"))

    assert [
        (source.name, each) for source in sources for each in imports.findall(source.read_text(encoding="utf-8"))
    ] == []


def test_the_pages_name_every_option() -> None:
    from pytest_llmmem.plugin.options import OPTIONS

    readme = PAGES[0].read_text(encoding="utf-8")

    assert [option.flag for option in OPTIONS if option.flag not in readme] == []


def prose(page: Path) -> list[tuple[int, str]]:
    """Each line of a page with its number, without blocks of code and rows of tables."""
    is_code, kept = False, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith(("|", "![", "[![")):
            kept.append((number, line))
    return kept


def test_links_lead_somewhere() -> None:
    for page in (*PAGES, *PROJECT_PAGES):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            inside = REPOSITORY.match(target)
            if inside or not target.startswith("http"):
                path = ROOT / inside["path"] if inside else page.parent / target
                assert path.exists(), f"{page.name} links to {target}"


def test_the_readme_has_no_relative_link_since_a_package_index_shows_it() -> None:
    assert re.findall(r"\]\((?!http)[^)]*\)", PAGES[0].read_text(encoding="utf-8")) == []


def test_pages_link_to_files_outside_the_site_by_their_address() -> None:
    for page in PAGES[1:]:
        assert "](../" not in page.read_text(encoding="utf-8"), (
            f"{page.name} links to a file that the site does not have"
        )


def test_every_page_is_in_the_navigation() -> None:
    navigation = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]

    listed = re.findall(r"[\w-]+\.md", str(navigation))

    assert sorted(listed) == sorted(page.name for page in PAGES[1:])


@pytest.mark.parametrize("page", [*PAGES, *PROJECT_PAGES], ids=lambda page: page.name)
def test_lines_of_prose_have_at_most_120_characters(page: Path) -> None:
    assert [number for number, line in prose(page) if len(line) > 120] == []
