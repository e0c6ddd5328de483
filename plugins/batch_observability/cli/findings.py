"""
What `batchobs lint` has found, as text: findings, a score for each owner, and the projected custom metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from batch_observability.cli.words import aligned, one_line
from batch_observability.lint.findings import Severity

if TYPE_CHECKING:
    from batch_observability.lint.findings import Finding
    from batch_observability.lint.formats import Report

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
# Models that make most of the custom metrics.
_MOST = 3


def print_report(report: Report, *, terminal: bool) -> None:
    """Print a report: with tables on a terminal, else one line for each finding."""
    if terminal:
        _print_tables(report)
    else:
        for one in report.findings:
            place = f"{one.file}:{one.line}: " if one.line else f"{one.file}: " if one.file else ""
            print(one_line(f"{place}{one.severity} {one.rule}: {_whole(one)}"))  # noqa: T201  (the command's voice)
        if report.scores:
            rows = [("OWNER", "SCORE", "MODELS", "ERRORS", "WARNINGS"), *_scores(report)]
            print("\n".join(aligned(rows)))  # noqa: T201  (the command's voice)
    print("\n".join(map(one_line, summary(report))))  # noqa: T201  (the command's voice)


def summary(report: Report) -> Iterator[str]:
    """Yield what is said below findings and scores."""
    counts = report.counts
    what = ", ".join(_number(counts[severity], str(severity)) for severity in Severity)
    silenced = f", {report.silenced:,} silenced" if report.silenced else ""
    yield f"{what}{silenced} in {_number(report.models, 'model')} of {_number(report.files, 'file')}"
    if report.history not in ("", "compared"):
        yield f"objectives are not compared with the past: {report.history}"
    projection = report.projection
    budget = f" of a budget of {report.budget:,}" if report.budget is not None else ""
    yield f"projected custom metrics: {projection.total:,} a day{budget}"
    parts = sorted(projection.by_metric.items(), key=lambda pair: -pair[1])
    yield f"  by metric: {', '.join(f'{name} {round(number):,}' for name, number in parts if round(number))}"
    most = sorted(projection.by_model.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST]
    yield f"  most: {', '.join(f'{name} {round(number):,}' for name, number in most) or 'none'}"
    for line in projection.assumed.words():
        yield f"  assumed: {line}"


def _whole(one: Finding) -> str:
    return f"{one.message}; {one.remedy}" if one.remedy else one.message


def _number(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _scores(report: Report) -> list[tuple[str, ...]]:
    return [
        (one.owner or "all", str(one.score), str(one.models), str(one.errors), str(one.warnings))
        for one in report.scores
    ]


def _print_tables(report: Report) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if report.findings:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("SEVERITY", no_wrap=True)
        table.add_column("RULE", no_wrap=True)
        table.add_column("FINDING", overflow="fold")
        for one in report.findings:
            text = Text(one_line(one.message))
            text.append(f"\n{one_line(one.remedy)}" if one.remedy else "", "dim")
            text.append(f"\n{one_line(f'{one.file}:{one.line}' if one.line else one.file)}" if one.file else "", "blue")
            table.add_row(Text(one.severity, _STYLES[one.severity]), Text(one.rule), text)
        console.print(table)
    if report.scores:
        _print_scores(console, Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0)), _scores(report))


def _print_scores(console: Any, table: Any, rows: Sequence[Sequence[str]]) -> None:
    from rich.text import Text

    table.add_column("OWNER", overflow="ellipsis")
    for head in ("SCORE", "MODELS", "ERRORS", "WARNINGS"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    console.print(table)
