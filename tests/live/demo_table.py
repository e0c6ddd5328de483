"""The table at the end of the demo: a line for each run, as it arrived at the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.live import evidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.live.agent import Span

HEAD = ("source", "run", "day", "read", "written", "rejected", "duration", "outcome", "trace id")
RIGHT = {"read", "written", "rejected", "duration"}


def table(
    tried: Sequence[evidence.Attempt], traces: Sequence[Sequence[Span]], job: evidence.Job, job_spans: Sequence[Span]
) -> list[str]:
    """
    Returns the lines of the table, by day: runs of Airflow, which came from the tracer, and a cron job's, by OTLP.

    Names and days come from Airflow and from who started the job, all else from the agent.
    """
    known = {attempt.key: attempt for attempt in tried}
    rows = [_of_airflow(run, known.get(run.key)) for run in evidence.runs(traces)]
    rows += [("cron", run.key.task_id, job.day, run) for run in evidence.job_runs(job_spans)]
    rows.sort(key=lambda row: (row[2], row[3].key))
    cells = [HEAD, *((*head, *_measured(run)) for *head, run in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    lines = [
        "  ".join(_padded(cell, head, width) for cell, head, width in zip(row, HEAD, widths, strict=True)).rstrip()
        for row in cells
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _of_airflow(run: evidence.Run, attempt: evidence.Attempt | None) -> tuple[str, str, str, evidence.Run]:
    conf = attempt.conf if attempt else {}
    day = str(conf.get("day") or conf.get("cutoff") or "")
    label = f"[{attempt.label}]" if attempt and attempt.label else ""
    return "airflow", f"{run.key.dag_id}.{run.key.task_id}{label}", day, run


def _measured(run: evidence.Run) -> tuple[str, ...]:
    return (
        *(f"{run.rows[kind]:,}" if kind in run.rows else "" for kind in evidence.ROWS),
        f"{run.duration_s:.2f} s",
        run.outcome,
        run.trace_id,
    )


def _padded(cell: str, head: str, width: int) -> str:
    return cell.rjust(width) if head in RIGHT else cell.ljust(width)
