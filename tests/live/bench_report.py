"""The page that a benchmark ends with: tables that can be read on a terminal and in Markdown."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tests.live.bench_samples import spread
from tests.live.bench_stand import AGENTS, BASELINE, DDTRACE, DDTRACE_RC_OFF, OBSERVED, OPENLINEAGE, PARALLEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.live.bench import Measured
    from tests.live.bench_samples import Sample

BUDGETS_MS = {"start": 15, "end": 20}
NAMES = {
    BASELINE: "no plugin",
    OBSERVED: "batch_observability",
    OPENLINEAGE: "OpenLineage",
    DDTRACE: "ddtrace-run",
    DDTRACE_RC_OFF: "ddtrace-run, RC off",
}
TASKS = {"trivial": "A task that does nothing", "stages": "A task with five stages of work"}
PACKAGES = ("apache-airflow", "apache-airflow-providers-openlineage", "ddtrace", "datadog")
# Before the sidecar's first look at the task, which it takes after a second.
IDLE_UNTIL_S = 0.8
# Longer than this, and Airflow's supervisor has missed the end of the task process until its next heartbeat.
MISSED_S = 0.5

Table = list[tuple[str, ...]]


def page(measured: Measured) -> str:
    """Returns the whole page."""
    tasks = (f"### {title}\n\n{_tasks(measured.tasks[task])}" for task, title in TASKS.items())
    sections = (
        "# What observing costs",
        _text(
            "Written by `make bench`, which overwrites it. All figures are of one run on one machine: compare the rows "
            "of a table with each other, not with another machine's."
        ),
        _machine(measured),
        "## The task, beside its neighbours",
        _text(
            "Milliseconds from the start of Airflow's supervisor to the end of the task process. *Added* is the median "
            "of the differences to the run without a plugin in the same round, *25 to 75 %* the middle half of them, "
            "*ratio* the median of the ratios. RC is ddtrace's remote configuration, on by default: a forked worker "
            "waits for its thread before it forks."
        ),
        *tasks,
        "### Where the time goes\n\n" + _phases(measured.tasks["trivial"]),
        "## The hooks, in the task process",
        _hooks(measured),
        "## The sidecar",
        _sidecar(measured),
        "## How it was measured",
        _method(measured),
    )
    return "\n\n".join(sections) + "\n"


def _tasks(samples: dict[str, list[Sample]]) -> str:
    head = ("variant", "min", "25 %", "median", "75 %", "max", "added", "25 to 75 %", "ratio", "CPU", "added", "memory")
    table: Table = [head]
    for variant, taken in samples.items():
        wall = spread(sample.wall for sample in taken)
        added = spread(_paired(taken, samples[BASELINE], lambda sample: sample.wall))
        cpu_added = statistics.median(_paired(taken, samples[BASELINE], lambda sample: sample.cpu))
        pairs = zip(taken, samples[BASELINE], strict=True)
        ratio = statistics.median(sample.wall / base.wall for sample, base in pairs)
        itself = variant == BASELINE
        table.append(
            (
                NAMES[variant],
                *(_ms(value) for value in (wall.least, wall.p25, wall.median, wall.p75, wall.most)),
                "" if itself else f"{added.median * 1e3:+.0f}",
                "" if itself else f"{added.p25 * 1e3:+.0f} to {added.p75 * 1e3:+.0f}",
                "" if itself else f"{ratio:.2f}",
                _ms(statistics.median(sample.cpu for sample in taken)),
                "" if itself else f"{cpu_added * 1e3:+.0f}",
                _mb(statistics.median(sample.memory_peak for sample in taken)),
            )
        )
    note = (
        f"{len(samples[BASELINE])} rounds. CPU in milliseconds, of the task process and of its supervisor. Memory is "
        "the peak of the task process, resident, with what it shares with its parent."
    )
    return f"{_table(table)}\n\n{_text(note)}"


def _paired(taken: Sequence[Sample], base: Sequence[Sample], value: Callable[[Sample], float]) -> list[float]:
    return [value(one) - value(other) for one, other in zip(taken, base, strict=True)]


def _phases(samples: dict[str, list[Sample]]) -> str:
    phases = ("fork", "startup", "run", "finalize", "exit")
    table: Table = [("variant", *phases, "start hook", "end hook")]
    for variant, taken in samples.items():
        hooks = [statistics.median(one.hooks.get(name, 0) for one in taken) * 1e3 for name in ("start", "end")]
        table.append(
            (
                NAMES[variant],
                *(_ms(statistics.median(one.phases[phase] for one in taken)) for phase in phases),
                *(f"{hook:.1f}" if hook else "" for hook in hooks),
            )
        )
    note = (
        "Medians in milliseconds, of the task that does nothing. Startup loads plugins and the DAG file; run holds the "
        "start hook and the task; finalize stores the links that Airflow's pages show, and holds the end hook."
    )
    return f"{_table(table)}\n\n{_text(note)}"


def _hooks(measured: Measured) -> str:
    rows: dict[str, list[Sample]] = {f"Agent {state}": measured.hooks[state] for state in AGENTS}
    rows[f"{PARALLEL} tasks at once, Agent healthy"] = measured.at_once
    table: Table = [("hook", "situation", "samples", "median", "95 %", "max", "budget", "within")]
    for hook, budget in BUDGETS_MS.items():
        for situation, taken in rows.items():
            times = [sample.hooks[hook] * 1e3 for sample in taken]
            times_spread = spread(times)
            within = sum(time <= budget for time in times)
            table.append(
                (
                    hook,
                    situation,
                    str(len(times)),
                    *(f"{value:.1f}" for value in (times_spread.median, times_spread.p95, times_spread.most)),
                    str(budget),
                    "all" if within == len(times) else f"{within} of {len(times)}",
                )
            )
    note = (
        "Milliseconds. Refused: nothing listens on the Agent's ports. Silent: connections open and are never answered."
    )
    return f"{_table(table)}\n\n{_text(note)}"


def _sidecar(measured: Measured) -> str:
    idle = [(use.before(use.looks[0].at + IDLE_UNTIL_S), use) for _, use in measured.sidecars]
    rows: dict[str, tuple[Iterable[float], Callable[[float], str]]] = {
        "memory, waiting (nothing sent yet)": ((look.memory for look, _ in idle), _mb),
        "memory, at the end of the task": ((use.before(one.ended).memory for one, use in measured.sidecars), _mb),
        "memory, peak while sending": ((use.memory_peak for _, use in measured.sidecars), _mb),
        "memory, peak of the child that tells the start": (
            (use.child_memory_peak for _, use in measured.sidecars),
            _mb,
        ),
        "CPU until it waits": ((look.cpu_s for look, _ in idle), _s),
        "CPU in all, without that child": ((use.cpu_s for _, use in measured.sidecars), _s),
        "CPU of the child that tells the start": ((use.child_cpu_s for _, use in measured.sidecars), _s),
        "time from the task's end to its own": ((use.ended - one.ended for one, use in measured.sidecars), _s),
    }
    table: Table = [("of one sidecar", "min", "median", "max")]
    for name, (values, text) in rows.items():
        of_all = spread(values)
        table.append((name, *(text(value) for value in (of_all.least, of_all.median, of_all.most))))
    note = (
        f"{len(measured.sidecars)} runs of 2 s, which send spans and metrics to an Agent. The child exists only in "
        "runs of more than a second, and is gone when the start is told. Memory is resident memory."
    )
    return f"{_table(table)}\n\n{_text(note)}"


def _machine(measured: Measured) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    memory = psutil.virtual_memory().total / 2**30
    busy = "" if measured.load < 1 else " **The machine was not quiet: expect more spread than there is.**"
    return _text(
        f"{datetime.now(UTC):%Y-%m-%d}. {os.cpu_count()} cores ({_processor()}), {memory:.0f} GB, "
        f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}, {versions}. "
        f"Load before the start: {measured.load:.1f}.{busy}"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _method(measured: Measured) -> str:
    tasks = measured.tasks.values()
    late = ", ".join(
        f"{name} {sum(one.noticed > MISSED_S for taken in tasks for one in taken[variant])}"
        for variant, name in NAMES.items()
    )
    listeners = "; ".join(
        f"{name}: {', '.join(measured.listeners[variant]) or 'none'}" for variant, name in NAMES.items()
    )
    arrived = "; ".join(f"{NAMES[variant]}: {what}" for variant, what in measured.arrived.items())
    points = f"""
        Every task runs in a real task process: Airflow's LocalExecutor, supervisor and task runner, against a real API
        server and database (SQLite). There is no scheduler: task instances are queued before, so that nothing runs
        beside a sample.

        Each variant has an executor of its own, which loads Airflow and the variant's plugins before it forks its
        workers, as the scheduler does. Packages that a variant does not have are hidden from Airflow. Listeners that
        Airflow then had: {listeners}.

        The variants take turns, each run starting when the sidecar of the run before has become quiet. The first runs
        of each executor do not count.

        The task's code is the same in all variants. Its stages are stages of ours, spans of ddtrace, or nothing. Under
        ddtrace the task ends with a flush: without it the spans are lost, as Airflow ends the process at once.

        Everything is sent to servers on the same machine: ours and ddtrace's to Datadog's test agent and a DogStatsD
        listener, OpenLineage's by HTTP. What arrived: {arrived}.

        Hooks are timed in the task process, by a listener around all others. CPU is what the system accounts to the
        processes (getrusage).

        Airflow's supervisor sometimes sees the end of the task process only at its next heartbeat; that is not counted
        here. Of {sum(len(taken[BASELINE]) for taken in tasks)} runs of each variant it was more than {MISSED_S:g} s
        late in: {late}.
    """
    return "\n".join(_text(point, "- ", "  ") for point in points.split("\n\n"))


def _text(text: str, first: str = "", others: str = "") -> str:
    """Returns a paragraph in lines, whatever lines it came in; `first` and `others` begin the lines."""
    return textwrap.fill(
        " ".join(text.split()),
        120,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(rows: Table) -> str:
    """Returns a Markdown table with aligned columns, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = [all(row[column][:1] in "+-0123456789" for row in rows[1:]) for column in range(len(widths))]

    def line(row: tuple[str, ...]) -> str:
        cells = zip(row, widths, right, strict=True)
        return (
            "| "
            + " | ".join(cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in cells)
            + " |"
        )

    rule = ["-" * (width - 1) + ":" if to_right else "-" * width for width, to_right in zip(widths, right, strict=True)]
    return "\n".join((line(rows[0]), "| " + " | ".join(rule) + " |", *map(line, rows[1:])))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f}"


def _s(seconds: float) -> str:
    return f"{seconds:.2f} s"


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f} MB"
