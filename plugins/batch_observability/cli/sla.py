"""
`batchobs sla`: how models have kept what they promised, and how they stand now. Read from the ledger; nothing is told.

A table on a terminal; elsewhere one line for each model, or JSON.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from batch_observability.cli.options import add_filters, duration, is_blank, load_settings, refuse_unknown
from batch_observability.cli.standing import Line, lines_of
from batch_observability.cli.words import aligned, document, finite, one_line, rough
from batch_observability.cron.known import known as known_jobs
from batch_observability.sla.promises import nanoseconds
from batch_observability.sla.telling import clock

_UNUSABLE = 1
_HEADS = ("MODEL", "OWNER", "ATTAINED", "BUDGET", "BURN", "WORST", "NEXT DUE", "STATE")
# On a terminal that is too narrow these are cut, to so many letters at most; numbers stand to the right.
_CUT = {"MODEL": 11, "OWNER": 5, "WORST": 6, "STATE": 11}
_NUMBERS = ("ATTAINED", "BUDGET", "BURN")
_STYLES = {"breached": "bold red", "at risk": "yellow", "failed": "red", "running": "cyan", "ok": "green"}


def add_parser(commands: Any) -> None:
    """Add `sla`; it sets `run`, which takes the options and returns the exit code."""
    sla = commands.add_parser(
        "sla",
        help="how models kept their promises, what is left of their error budgets, and how they stand now",
        description="How models kept their promises over a window, what is left of the failures that their success "
        "rate allows, how fast that goes, what was kept worst, when they are due next, and how they stand now.",
    )
    sla.add_argument("--since", type=duration, default=timedelta(days=30), metavar="DURATION", help="the window (30d)")
    add_filters(sla)
    sla.add_argument("--json", action="store_true", help="print one JSON object, with each objective")
    sla.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from batch_observability.ledger.store import Ledger, LedgerError

    settings = load_settings()
    now_ns = time.time_ns()
    since_ns = now_ns - nanoseconds(options.since)
    lines: list[Line] = []
    known: dict[str, dict[str, Any]] = {}
    try:
        if not is_blank(settings):
            ledger = Ledger(settings.ledger, settings.ledger_timeout)
            jobs = known_jobs(settings.state_path)
            lines = lines_of(ledger, jobs, since_ns, now_ns, model=options.model, owner=options.owner)
            known = {} if lines else {name: model for name, (model, _, _) in ledger.newest_successes().items()}
        if not lines:
            refuse_unknown(options, known)
    except LedgerError as error:
        print(f"batchobs: {error}", file=sys.stderr)  # noqa: T201  (the command's voice)
        return _UNUSABLE
    if options.json:
        models = [_as_json(one) for one in lines]
        print(document({"since": clock(since_ns), "until": clock(now_ns), "models": models}))  # noqa: T201
    elif not lines:
        print("no model is known yet: one is when it has run, or when Airflow has read its DAG")  # noqa: T201
    elif sys.stdout.isatty():
        _print_table(lines, now_ns, f"since {clock(since_ns)}")
    else:
        print("\n".join(aligned([_HEADS, *(_cells(one, now_ns) for one in lines)])))  # noqa: T201
    return 0


def _cells(line: Line, now_ns: int) -> list[str]:
    due_ns, worst = line.standing.next_due_ns, line.worst
    due = "-"
    if due_ns is not None:
        due = f"in {rough(due_ns - now_ns)}" if due_ns > now_ns else "now"
        due = f"overdue {rough(now_ns - due_ns)}" if line.overdue else due
    return [
        line.standing.name,
        str(line.standing.definition.get("owner") or "-"),
        line.total.text,
        "-" if line.budget_left is None else "none" if line.budget_left == -float("inf") else f"{line.budget_left:.1%}",
        "-" if line.burn_rate is None else f"{line.burn_rate:.1f}x",
        f"{worst} {line.judged[worst].text}" if worst else "-",
        due,
        f"{line.state}: {line.words}",
    ]


def _print_table(lines: Sequence[Line], now_ns: int, title: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    styles = [_styles(line) for line in lines]
    columns = zip(*(_cells(line, now_ns) for line in lines), strict=True)
    cells = []
    for head, column in zip(_HEADS, columns, strict=True):
        justify: Any = "right" if head in _NUMBERS else "left"
        least = _CUT.get(head)
        table.add_column(head, justify=justify, overflow="ellipsis", no_wrap=least is None, min_width=least)
        # All lines in one row: rich takes seconds for a thousand of them.
        clean = [one_line(cell) for cell in column]
        text, at = Text("\n".join(clean), no_wrap=True, overflow="ellipsis"), 0
        for cell, style in zip(clean, styles, strict=True):
            text.stylize(style.get(head, ""), at, at + len(cell))
            at += len(cell) + 1
        cells.append(text)
    table.add_row(*cells)
    Console().print(table)


def _styles(line: Line) -> dict[str, str]:
    """Return the style of a line by column."""
    return {"STATE": _STYLES.get(line.state, "magenta"), **({"NEXT DUE": "red"} if line.overdue else {})}


def _as_json(line: Line) -> dict[str, Any]:
    standing, promised = line.standing, line.standing.definition.get("objectives", {})
    times = {
        "next_due": standing.next_due_ns,
        "last_start": standing.last_start_ns,
        "last_success": standing.last_success_ns,
    }
    return {
        "model": standing.name,
        **{name: standing.definition.get(name, "") for name in ("owner", "tier", "service", "version")},
        "attainment": line.total.attainment,
        "objectives": {
            name: {"promise": promised.get(name), "kept": one.kept, "broken": one.broken, "attainment": one.attainment}
            for name, one in line.judged.items()
        },
        "worst_objective": line.worst or None,
        "error_budget_left": finite(line.budget_left),
        "burn_rate": finite(line.burn_rate),
        **{name: getattr(standing, name) for name in ("succeeded", "failed", "open_runs", "last_outcome")},
        **{name: clock(moment) if moment is not None else None for name, moment in times.items()},
        "overdue": line.overdue,
        "state": line.state,
        "words": line.words,
        "breached": [{"objective": one.objective, "since": clock(one.breached_ns or 0)} for one in standing.open],
    }
