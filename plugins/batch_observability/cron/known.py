"""
Which cron jobs are due on this host, and since when: `<state>/jobs/<job>.json`.

A job that never starts has no process that could say so; who looks for missed ones reads here what is to be there.
Each job that starts reads it, too, so that its next due times are kept here, and little is imported.
"""

from __future__ import annotations

import json
import re
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batch_observability.private import private_folder, write_private

SOURCE = "cron"
BY_RUN, BY_WRAP, BY_CATALOG = "run", "wrap", "catalog"
# A job that is due promises to begin within it, unless its model says otherwise: who looks calls it missed then.
START_WITHIN = "5m"
_OBJECTIVE = "start_within"
_FOLDER = "jobs"
# Cron wakes up each minute.
_STARTS_WITHIN_NS = 60 * 10**9
# To read a schedule takes a job ten milliseconds, and so happens once in so many starts.
_AHEAD = 60
_REBOOT = "@reboot"


@dataclass(frozen=True, kw_only=True)
class KnownJob:
    """
    A cron job that is due at times that are known.

    Attributes:
        name: of the job.
        model: as runs carry it.
        schedule: as it is written in a crontab.
        timezone: IANA name; "": this host's.
        since_ns: since when this schedule is known.
        by: who said so: `run`, `wrap` or `catalog`.
        upcoming: when it is due next, some times, from when they were computed.
    """

    name: str
    model: dict[str, Any]
    schedule: str
    timezone: str
    since_ns: int
    by: str
    upcoming: list[int]

    def due_at(self, start_ns: int) -> int | None:
        """Return which due time a run is for that begins now; None if it is for none, as one that a person starts."""
        return next((due for due in self.upcoming if due <= start_ns < due + _STARTS_WITHIN_NS), None)


def promising(model: dict[str, Any], schedule: str) -> dict[str, Any]:
    """Return the model of a scheduled job, as runs carry it, with the promise to start that all such jobs make."""
    if not schedule or schedule == _REBOOT or _OBJECTIVE in model["objectives"]:
        return model
    return {**model, "objectives": {_OBJECTIVE: START_WITHIN, **model["objectives"]}}


def note(state: Path, name: str, model: dict[str, Any], schedule: str, timezone: str, *, by: str) -> KnownJob:
    """
    Write down that a job is due, if that is news; return what is known of it.

    Raises:
        ScheduleError: if the schedule or its time zone cannot be read.
        OSError: if it cannot be written.
    """
    path, now_ns = _path(state, name), time.time_ns()
    before = _read(path)
    if before is not None and (before.schedule, before.timezone) == (schedule, timezone):
        since_ns, upcoming = before.since_ns, before.upcoming
    else:
        since_ns, upcoming = now_ns, []
    if (not upcoming or upcoming[-1] <= now_ns) and schedule != _REBOOT:
        upcoming = _next_due(schedule, timezone, now_ns - _STARTS_WITHIN_NS)
    job = KnownJob(
        name=name,
        model=promising(model, schedule),
        schedule=schedule,
        timezone=timezone,
        since_ns=since_ns,
        by=by,
        upcoming=upcoming,
    )
    if job != before:
        private_folder(path.parent)
        write_private(path, json.dumps(asdict(job)))
    return job


def known(state: Path) -> dict[str, KnownJob]:
    """Return the jobs that are due on this host, by name."""
    found = (_read(path) for path in (state / _FOLDER).glob("*.json"))
    return {job.name: job for job in found if job is not None}


def forget(state: Path, name: str) -> None:
    """Expect a job no more on this host."""
    _path(state, name).unlink(missing_ok=True)


def _next_due(schedule: str, timezone: str, after_ns: int) -> list[int]:
    from batch_observability.cron.schedule import parse, zone_of

    return parse(schedule, zone_of(timezone) if timezone else None).upcoming(after_ns, _AHEAD)


def _path(state: Path, name: str) -> Path:
    # Names that differ in other characters only are told apart by the number.
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:100]
    return state / _FOLDER / f"{stem}-{zlib.crc32(name.encode()):08x}.json"


def _read(path: Path) -> KnownJob | None:
    try:
        return KnownJob(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
