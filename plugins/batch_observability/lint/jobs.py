"""
What a catalog says of cron jobs that no cron can do: schedules and zones that there are not, files that are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batch_observability.cron.schedule import ScheduleError, parse, zone_of
from batch_observability.lint.findings import Complaint, Subject


def bad_schedule(subject: Subject) -> Iterator[Complaint]:
    """A schedule can be read, and is due at some time in a zone that there is."""
    whose = f"of model {subject.model.name!r}"
    try:
        zone = zone_of(subject.timezone) if subject.timezone else None
    except ScheduleError as error:
        yield Complaint(text=f"timezone {whose}: {error}", subject=subject, key="timezone")
        zone = None
    if not subject.schedule:
        if subject.timezone and not subject.match:
            text = f"timezone {whose} is {subject.timezone!r}, and there is no schedule: write one, or leave it out"
            yield Complaint(text=text, subject=subject, key="timezone")
        return
    try:
        parse(subject.schedule, zone)
    except ScheduleError as error:
        yield Complaint(text=f"schedule {whose}: {error}", subject=subject, key="schedule")


def missing_env_file(subject: Subject) -> Iterator[Complaint]:
    """The file of variables is there; a relative one is looked for beside the catalog too."""
    if not subject.env_file:
        return
    path = Path(subject.env_file).expanduser()
    folders = (Path(), Path(subject.place("env_file")[0]).parent)
    if not any((folder / path).is_file() for folder in folders):
        text = f"env_file of model {subject.model.name!r} is {subject.env_file!r}, which is not there"
        yield Complaint(text=text, subject=subject, key="env_file")
