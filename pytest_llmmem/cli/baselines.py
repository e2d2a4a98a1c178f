"""``llmmem compare``, ``history`` and ``suggest``: what the reports and baselines of several runs say together."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pytest_llmmem.cli.arguments import Json
from pytest_llmmem.cli.output import print_json
from pytest_llmmem.core.errors import BaselineError

Format = Annotated[Literal["text", "markdown"], typer.Option("--format", help="markdown is for a pull request.")]
ToleranceText = Annotated[
    str, typer.Option("--tolerance", metavar="TOLERANCE", help="How far a peak may move: '5% + 16MB'.")
]
Old = Annotated[Path, typer.Argument(metavar="OLD", help="A JSON report of --llm-report.")]
New = Annotated[Path, typer.Argument(metavar="NEW", help="The same tests, later or on another branch.")]
Reports = Annotated[list[Path], typer.Argument(metavar="REPORT...", help="JSON reports of --llm-report.")]
DEFAULT = "5% + 16MB"


def compare(
    old: Old,
    new: New,
    *,
    tolerance: ToleranceText = DEFAULT,
    format: Format = "text",  # noqa: A002 -- the option's name
    json: Json = False,
) -> None:
    """Put two reports side by side; exit status 1 when a test has grown."""
    from pytest_llmmem.baselines.compare import HEADER
    from pytest_llmmem.baselines.reading import read_report
    from pytest_llmmem.baselines.sessions import compare_sessions

    sessions = compare_sessions(read_report(old), read_report(new), _tolerance(tolerance))
    if json:
        tests = [
            {
                "nodeid": each.nodeid,
                "verdict": each.verdict,
                "sentence": each.sentence(),
                "changes": [
                    {
                        "of": change.measure,
                        "before_bytes": change.before_bytes,
                        "after_bytes": change.after_bytes,
                        "verdict": change.verdict,
                    }
                    for change in each.changes
                ],
            }
            for each in sessions.comparisons
        ]
        print_json({"schema": 1, "notes": list(sessions.notes), "tests": tests})
    else:
        _print_table(HEADER, sessions.rows(), format)
        # an empty line ends a table of Markdown
        for line in (*([""] if format == "markdown" else []), *sessions.notes, sessions.summary()):
            typer.echo(line)
    if any(each.verdict == "grew" for each in sessions.comparisons):
        raise typer.Exit(1)


def history(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder with JSON reports, in the order of their names.")
    ],
    *,
    tolerance: ToleranceText = DEFAULT,
    format: Format = "text",  # noqa: A002 -- the option's name
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with charts, too.")] = None,
    json: Json = False,
) -> None:
    """Follow every test over many reports, and say where its peak changed."""
    from pytest_llmmem.baselines.history import HEADER, read_reports, trends

    reports = read_reports(folder)
    found = trends(reports, _tolerance(tolerance))
    if html:
        _write_page(html, found, [name for name, _ in reports], tolerance)
    if json:
        print_json({"schema": 1, "trends": [_trend(trend) for trend in found]})
        return
    machines = sorted({trend.machine for trend in found})
    for machine in machines:
        if len(machines) > 1:
            typer.echo(f"\n{machine}")
        _print_table(HEADER, (trend.row() for trend in found if trend.machine == machine), format)


def suggest(reports: Reports, *, json: Json = False) -> None:
    """Suggest a tolerance and budgets from the spread of repeated runs (--llm-repeat)."""
    from pytest_llmmem.baselines.reading import read_report
    from pytest_llmmem.baselines.suggest import HEADER, noise_of
    from pytest_llmmem.baselines.suggest import suggest as suggest_from
    from pytest_llmmem.baselines.values import runs_by_test

    runs = runs_by_test(map(read_report, reports)).values()
    suggestion = suggest_from(noise for each in runs if (noise := noise_of(each)))
    if json:
        tests = [
            {
                "nodeid": noise.nodeid,
                "runs": noise.runs,
                "of": measure,
                "median_bytes": spread.median_bytes,
                "spread_bytes": spread.bytes if noise.runs > 1 else None,
                "budget": suggestion.marker(noise, measure, spread) or None,
                "tolerance": spread.own_tolerance,
            }
            for noise in suggestion.tests
            for measure, spread in noise.spreads.items()
        ]
        print_json(
            {"schema": 1, "tolerance": suggestion.tolerance.text, "measured": suggestion.measured, "tests": tests}
        )
        return
    for line in suggestion.lines():
        typer.echo(line)
    _print_table(HEADER, suggestion.rows(), "text")


def _tolerance(text: str) -> Any:
    from pytest_llmmem.baselines.tolerance import parse_tolerance

    try:
        return parse_tolerance(text)
    except ValueError as error:
        msg = f"--tolerance: {error}"
        raise BaselineError(msg) from None


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]], format_: Literal["text", "markdown"]) -> None:
    from pytest_llmmem.reports.comparison import table

    for line in table(header, rows, format=format_):
        typer.echo(line)


def _write_page(path: Path, found: Iterable[Any], reports: Sequence[str], tolerance: str) -> None:
    from pytest_llmmem.reports.history import render

    try:
        path.write_text(render([_line(trend) for trend in found], reports, tolerance=tolerance), encoding="utf-8")
    except OSError as error:
        msg = f"--html {path}: cannot be written ({error.strerror}): name a file in a folder that is there"
        raise BaselineError(msg) from None
    typer.echo(f"wrote {path}", err=True)


def _line(trend: Any) -> Any:
    """A trend as the page shows it: each point beside the level that the test keeps from there on."""
    from pytest_llmmem.reports.history import Line, Point

    left = {step.report for step in trend.steps}
    points: list[Point] = []
    level = trend.points[0]
    for point in trend.points:
        level = point if point.report in left else level
        points.append(
            Point(
                report=point.report,
                size_bytes=point.size_bytes,
                level_bytes=level.size_bytes,
                allowed_bytes=trend.tolerance.bytes(level.size_bytes) + level.error_bytes + point.error_bytes,
            )
        )
    return Line(nodeid=trend.nodeid, machine=trend.machine, measure=trend.measure, points=tuple(points))


def _trend(trend: Any) -> dict[str, Any]:
    return {
        "nodeid": trend.nodeid,
        "machine": trend.machine,
        "measure": trend.measure,
        "points": [{"report": point.report, "bytes": point.size_bytes} for point in trend.points],
        "steps": [{"report": step.report, "bytes": step.change.difference_bytes} for step in trend.steps],
    }
