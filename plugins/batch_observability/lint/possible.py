"""
Objectives that nobody can keep, whatever the model does: they contradict each other, or the schedule of the job.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise

from batch_observability.cron.schedule import ScheduleError, parse, zone_of
from batch_observability.lint.findings import Complaint, Subject

# Due times of a job that are looked at: those of a weekday may be closer than those over a weekend.
_DUE_TIMES = 50


def impossible_objective(subject: Subject) -> Iterator[Complaint]:
    """No objective excludes another, and none asks for more than the schedule allows."""
    sla, promised = subject.model.sla, subject.model.objectives()
    if sla is None or "sla" in subject.unknown:
        return
    whose = f"of model {subject.model.name!r}"
    shortest, longest = sla.min_duration, sla.finish_within
    if isinstance(shortest, timedelta) and isinstance(longest, timedelta) and shortest >= longest:
        text = f"min_duration {whose} is {promised['min_duration']}, and finish_within {promised['finish_within']}"
        yield Complaint(text=f"{text}: no run keeps both", subject=subject, key="sla.min_duration")
    age, gap = sla.freshness, _shortest_gap(subject)
    if isinstance(age, timedelta) and gap is not None and age < gap:
        text = (
            f"freshness {whose} is {promised['freshness']}, and its job is due {subject.schedule!r}: "
            "its result is always older before the next one comes"
        )
        yield Complaint(text=text, subject=subject, key="sla.freshness")


def _shortest_gap(subject: Subject) -> timedelta | None:
    """Return the shortest time from one due time of a job to the next; None if nothing is known of it."""
    # Tasks may be due at other times.
    if not subject.schedule or subject.match:
        return None
    try:
        schedule = parse(subject.schedule, zone_of(subject.timezone) if subject.timezone else None)
    except ScheduleError:
        return None
    due = schedule.upcoming(time.time_ns(), _DUE_TIMES)
    return min((timedelta(microseconds=(after - before) // 1000) for before, after in pairwise(due)), default=None)
