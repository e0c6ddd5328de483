"""The table at the end of the demo: a line for each run, as it arrived at the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.live import evidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.live.agent import Span

HEAD = ("run", "day", "read", "written", "rejected", "duration", "outcome", "trace id")
RIGHT = {"read", "written", "rejected", "duration"}


def table(tried: Sequence[evidence.Attempt], traces: Sequence[Sequence[Span]]) -> list[str]:
    """Returns the lines of the table; the names and days of the runs come from Airflow, all else from the agent."""
    known = {attempt.key: attempt for attempt in tried}
    rows = sorted(_row(run, known.get(run.key)) for run in evidence.runs(traces))
    cells = [HEAD, *(cells for _order, cells in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    lines = [
        "  ".join(_padded(cell, head, width) for cell, head, width in zip(row, HEAD, widths, strict=True))
        for row in cells
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _row(run: evidence.Run, attempt: evidence.Attempt | None) -> tuple[tuple[str, evidence.Key], tuple[str, ...]]:
    conf = attempt.conf if attempt else {}
    day = str(conf.get("day") or conf.get("cutoff") or "")
    label = f"[{attempt.label}]" if attempt and attempt.label else ""
    cells = (
        f"{run.key.dag_id}.{run.key.task_id}{label}",
        day,
        *(f"{run.rows[kind]:,}" if kind in run.rows else "" for kind in ("read", "written", "rejected")),
        f"{run.duration_s:.2f} s",
        run.outcome,
        run.trace_id,
    )
    return (day, run.key), cells


def _padded(cell: str, head: str, width: int) -> str:
    return cell.rjust(width) if head in RIGHT else cell.ljust(width)
