"""
What is due of cron jobs, and which of it has begun: from their schedules and the runs that the ledger has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from batch_observability.cron.declaring import declared as declaration
from batch_observability.cron.declaring import schedule_of
from batch_observability.cron.known import SOURCE, KnownJob
from batch_observability.cron.schedule import ScheduleError
from batch_observability.ledger.records import Declared
from batch_observability.ledger.scheduled import CronRun, Scheduled
from batch_observability.schema import Outcome
from batch_observability.sla.promises import slot_of, unix_ns
from batch_observability.sla.watch import Expected

if TYPE_CHECKING:
    from batch_observability.ledger.store import Ledger

# What was due before is over.
_LOOK_BACK = timedelta(days=1)
# Of a job that is due each minute on a host that was down, the newest are told.
_MOST = 50
_SETTLED = frozenset({Outcome.SUCCESS, Outcome.SKIPPED})


@dataclass(frozen=True)
class _Due:
    job: KnownJob
    since: datetime


def expected(
    ledger: Ledger, here: Mapping[str, KnownJob], env: str, now: datetime
) -> tuple[list[Expected], list[Declared]]:
    """
    Return what is due of cron jobs since a day, and what they are.

    Args:
        ledger: is asked for runs, and for jobs of other hosts.
        here: jobs that are due on this host.
        env: deployment environment.
        now: what is due later is not expected yet.
    """
    since = now - _LOOK_BACK
    due = [_Due(job, max(since, _moment(job.since_ns))) for job in here.values()]
    due += _elsewhere(ledger.jobs(SOURCE), here, since)
    runs = _by_job(ledger.runs_of_jobs(SOURCE, unix_ns(since))) if due else {}
    found: list[Expected] = []
    declared: list[Declared] = []
    for one in due:
        try:
            found += _slots(one, runs.get(one.job.name, ()), env, now)
            if one.job.name in here:
                upcoming = schedule_of(one.job).next(now)
                declared.append(declaration(one.job, unix_ns(upcoming) if upcoming else None))
        except ScheduleError:
            # Another version of this package has written it: that one looks for it.
            continue
    return found, declared


def next_due(ledger: Ledger, here: Mapping[str, KnownJob], begun: Mapping[str, int | None]) -> dict[str, int]:
    """
    Return by model when its jobs are due next that nobody has begun; in the past if it is late.

    Args:
        ledger: is asked for jobs of other hosts.
        here: jobs that are due on this host.
        begun: models to look at, and when their newest run began, None if there is none.
    """
    elsewhere = (_of_ledger(one) for one in ledger.jobs(SOURCE) if one.name not in here and one.schedule)
    found: dict[str, int] = {}
    for job in (*here.values(), *elsewhere):
        name = job.model["name"]
        if name not in begun:
            continue
        with suppress(ScheduleError):
            upcoming = schedule_of(job).next(_moment(max(job.since_ns, begun[name] or 0)))
            if upcoming is not None:
                found[name] = min(unix_ns(upcoming), found.get(name, unix_ns(upcoming)))
    return found


def _elsewhere(scheduled: Iterable[Scheduled], here: Collection[str], since: datetime) -> Iterator[_Due]:
    """Yield the jobs of other hosts, since what they were to do next when they were heard of last."""
    for one in scheduled:
        if one.name not in here and one.schedule and one.next_due_ns is not None:
            # What is due at a moment is due after the one before.
            yield _Due(_of_ledger(one), max(since, _moment(one.next_due_ns) - timedelta(microseconds=1)))


def _of_ledger(one: Scheduled) -> KnownJob:
    fields = one.schedule.split(" ")
    count = 1 if fields[0].startswith("@") else 5
    return KnownJob(
        name=one.name,
        model=one.model,
        schedule=" ".join(fields[:count]),
        timezone=" ".join(fields[count:]),
        since_ns=one.since_ns,
        by="ledger",
        upcoming=[],
    )


def _slots(due: _Due, runs: Iterable[CronRun], env: str, now: datetime) -> Iterator[Expected]:
    """Yield each time that a job was due, with what became of it."""
    job = due.job
    slots = [unix_ns(moment) for moment in schedule_of(job).between(due.since, now)]
    of_slot: dict[int, list[CronRun]] = {}
    for run in runs:
        # Who began it knows what for; else it is for what was due last.
        place = bisect_right(slots, run.start_ns)
        slot = run.due_ns if run.due_ns is not None else slots[place - 1] if place else None
        if slot is not None:
            of_slot.setdefault(slot, []).append(run)
    for slot in slots[-_MOST:]:
        begun = of_slot.get(slot, [])
        outcomes = [run.outcome for run in begun]
        yield Expected(
            model=job.model,
            source=SOURCE,
            env=env,
            resource=job.name,
            job=job.name,
            slot=slot_of("scheduled", slot, ""),
            due_ns=slot,
            since_ns=job.since_ns,
            started_ns=min((run.start_ns for run in begun), default=None),
            settled=not _SETTLED.isdisjoint(outcomes),
            why=_why(outcomes),
        )


def _why(outcomes: list[str | None]) -> str:
    """Say in a few words why a job that began has not succeeded."""
    if not outcomes or not _SETTLED.isdisjoint(outcomes):
        return ""
    last = outcomes[-1]
    return "it is running" if last is None else f"its run ended as {last}".replace("_", " ")


def _by_job(runs: Iterable[CronRun]) -> dict[str, list[CronRun]]:
    found: dict[str, list[CronRun]] = {}
    for run in runs:
        found.setdefault(run.job, []).append(run)
    return found


def _moment(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns // 1000 / 1e6, UTC)
