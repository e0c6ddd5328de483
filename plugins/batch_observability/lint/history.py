"""
Objectives against the past: one that a twentieth of the runs would have broken is a wish, and pages somebody at night.

The runs come from the ledger; of a model with few of them nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from batch_observability.lint.findings import Complaint, Subject
from batch_observability.model import SLA
from batch_observability.objective import FinishBy, format_duration
from batch_observability.schema import Outcome

if TYPE_CHECKING:
    from batch_observability.ledger.history import PastRun
    from batch_observability.ledger.store import Ledger

# Of fewer, the greatest one in twenty is the greatest of all.
LEAST_RUNS = 20
MOST_RUNS = 500
WINDOW = timedelta(days=90)
_SHARE = 0.95
_SECOND = 10**9


@dataclass(frozen=True)
class _Seen:
    """What was seen of an objective: a value of each run, how it is written, and whether more of it is worse."""

    objective: str
    promise: float
    values: Sequence[float]
    kind: str
    more_is_worse: bool = True

    @property
    def usual(self) -> float:
        """The value that 19 of 20 runs do not exceed or, where less is worse, do not fall below."""
        ordered = sorted(self.values, reverse=not self.more_is_worse)
        return ordered[math.ceil(_SHARE * len(ordered)) - 1]

    def breaks(self, value: float) -> bool:
        """Whether a run with that value breaks it."""
        return value > self.promise if self.more_is_worse else value < self.promise


def tight_objectives(subject: Subject, ledger: Ledger, now_ns: int) -> Iterator[Complaint]:
    """
    Yield the objectives of a model that more than one in twenty of its runs would have broken.

    Raises:
        LedgerError: if the ledger cannot be asked.
    """
    sla = subject.model.sla
    if sla is None or not {"sla", "name"}.isdisjoint(subject.unknown):
        return
    runs = ledger.past_runs(subject.model.name, now_ns - _ns(WINDOW), MOST_RUNS)
    for seen in _seen(sla, runs):
        if len(seen.values) >= LEAST_RUNS and seen.breaks(seen.usual):
            yield _complaint(subject, seen)
    if sla.success_rate is not None and isinstance(sla.window, timedelta):
        succeeded, failed, _ = ledger.success_rate(subject.model.name, now_ns - _ns(sla.window))
        total = succeeded + failed
        if total >= LEAST_RUNS and succeeded / total < float(sla.success_rate):
            text = (
                f"success_rate of model {subject.model.name!r} is {float(sla.success_rate):.2%}, and {succeeded:,} of "
                f"its {total:,} runs within {format_duration(sla.window)} succeeded, {succeeded / total:.2%}"
            )
            yield Complaint(text=text, subject=subject, key="sla.success_rate")


def _seen(sla: SLA, runs: Sequence[PastRun]) -> Iterator[_Seen]:
    succeeded = [run for run in runs if run.outcome == Outcome.SUCCESS]
    first_tries = [run for run in runs if run.start_ns == run.first_start_ns and run.due_ns is not None]
    if isinstance(sla.start_within, timedelta):
        delays = [(run.start_ns - (run.due_ns or 0)) / _SECOND for run in first_tries]
        yield _Seen("start_within", sla.start_within.total_seconds(), delays, "began after")
    if isinstance(sla.finish_within, timedelta):
        durations = [(run.end_ns - run.first_start_ns) / _SECOND for run in succeeded]
        yield _Seen("finish_within", sla.finish_within.total_seconds(), durations, "took")
    if isinstance(sla.finish_by, FinishBy):
        late = [
            (run.end_ns / _SECOND) - sla.finish_by.on(datetime.fromtimestamp(run.due_ns // _SECOND, UTC)).timestamp()
            for run in succeeded
            if run.due_ns is not None
        ]
        yield _Seen("finish_by", 0.0, late, "were late by")
    if isinstance(sla.min_duration, timedelta):
        durations = [(run.end_ns - run.start_ns) / _SECOND for run in succeeded]
        yield _Seen("min_duration", sla.min_duration.total_seconds(), durations, "took", more_is_worse=False)
    if isinstance(sla.freshness, timedelta):
        ends = sorted(run.end_ns for run in succeeded)
        gaps = [(after - before) / _SECOND for before, after in pairwise(ends)]
        yield _Seen("freshness", sla.freshness.total_seconds(), gaps, "came after")
    if sla.min_rows is not None:
        rows = [float(run.rows_written) for run in succeeded if run.rows_written is not None]
        yield _Seen("min_rows", float(sla.min_rows), rows, "wrote", more_is_worse=False)
    if sla.max_rejected_ratio is not None:
        ratios = [(run.rows_rejected or 0) / run.rows_read for run in succeeded if run.rows_read]
        yield _Seen("max_rejected_ratio", float(sla.max_rejected_ratio), ratios, "rejected")


def _complaint(subject: Subject, seen: _Seen) -> Complaint:
    promise = subject.model.objectives()[seen.objective]
    broken = sum(map(seen.breaks, seen.values))
    bound = "or more" if seen.more_is_worse else "or less"
    text = (
        f"{seen.objective} of model {subject.model.name!r} is {promise}, and of its last {len(seen.values):,} runs "
        f"1 in 20 {seen.kind} {_written(seen, seen.usual)} {bound}: {broken:,} would have broken it"
    )
    return Complaint(text=text, subject=subject, key=f"sla.{seen.objective}")


def _written(seen: _Seen, value: float) -> str:
    if seen.objective == "min_rows":
        return f"{value:,.0f} rows"
    if seen.objective == "max_rejected_ratio":
        return f"{value:.1%} of their rows"
    return format_duration(timedelta(seconds=round(value) if value >= 10 else round(value, 1)))


def _ns(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
