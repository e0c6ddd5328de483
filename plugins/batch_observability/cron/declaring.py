"""
What the ledger is told of cron jobs, and what a catalog says of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batch_observability.catalog import Catalog, Cataloged
from batch_observability.cron.known import BY_CATALOG, SOURCE, KnownJob, forget, known, note
from batch_observability.cron.schedule import Schedule, ScheduleError, parse, zone_of
from batch_observability.ledger.records import Declared

FORGOTTEN = "forgotten"


def schedule_of(job: KnownJob) -> Schedule:
    """
    Return when a job is due.

    Raises:
        ScheduleError: if that cannot be read.
    """
    return parse(job.schedule, zone_of(job.timezone) if job.timezone else None)


def declared(job: KnownJob, next_due_ns: int | None) -> Declared:
    """Return what the ledger is to know of a job; its schedule is followed by its time zone."""
    schedule = schedule_of(job)
    return Declared(
        dag_id="",
        task_id=job.name,
        source=SOURCE,
        model=job.model,
        since_ns=job.since_ns,
        schedule=f"{schedule.text} {schedule.zone.key or ''}".strip(),
        next_due_ns=next_due_ns,
    )


def forgotten(name: str, model: dict[str, Any], since_ns: int) -> Declared:
    """Return that the ledger is to expect a job no more."""
    return Declared(dag_id="", task_id=name, source=SOURCE, model=model, since_ns=since_ns, state=FORGOTTEN)


def note_catalog(state: Path, catalog: Catalog) -> None:
    """
    Write down which jobs a catalog says are due; of one that has said so itself, its word counts.

    Raises:
        OSError: if it cannot be written.
        CatalogError: if a schedule cannot be read.
    """
    if not catalog.files:
        return
    before = known(state)
    scheduled = {one.model.name: one for one in catalog.scheduled()}
    for name, one in scheduled.items():
        if name not in before or before[name].by == BY_CATALOG:
            check(one)
            note(state, name, one.model.as_text(), one.schedule, one.timezone, by=BY_CATALOG)
    for name, job in before.items():
        if job.by == BY_CATALOG and name not in scheduled:
            forget(state, name)


def check(one: Cataloged) -> None:
    """Raise `CatalogError` if the schedule of a model in a catalog, or its time zone, cannot be read."""
    for key, read, text in (("timezone", zone_of, one.timezone), ("schedule", parse, one.schedule)):
        try:
            if text:
                read(text)
        except ScheduleError as error:
            raise one.mistake(key, f"{key} of model {one.model.name!r}: {error}") from None
