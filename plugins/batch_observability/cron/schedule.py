"""
When a cron expression is due in a time zone: as Debian's cron has it, changes of the clock included (man 8 cron).

CronSim reads the expression. Days are walked here, and not by CronSim, which loses due times where a zone changes
by half an hour (`*/15 3 * * *` in Australia/Lord_Howe).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    from cronsim import CronSim

REBOOT = "@reboot"
NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DAYS = "sun|mon|tue|wed|thu|fri|sat"
# Name, what may stand there, greatest value, and names of values.
_FIELDS = (
    ("minute", "0 to 59", 59, ""),
    ("hour", "0 to 23", 23, ""),
    ("day of month", "1 to 31", 31, ""),
    ("month", "1 to 12 or jan to dec", 12, _MONTHS),
    ("day of week", "0 to 7 or sun to sat", 7, _DAYS),
)
_STEP_OF_RANGE = re.compile(r"(\w+)-(\w+)/\d+")
_STEP_ALONE = re.compile(r"(?:^|,)(\w+)/(\d+)")
_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
# If the clock changes around midnight, these have the offsets of before and after.
_MIDNIGHT, _MIDNIGHT_AGAIN = time(0, fold=0), time(0, fold=1)
# The 29th of February may be a given day of the week only once in 40 years.
_REACH = timedelta(days=15_000)


class ScheduleError(ValueError):
    """A schedule or its time zone is written wrongly. The message is one line for the user."""


@dataclass(frozen=True)
class Schedule:
    """
    When a job is due.

    Attributes:
        text: five fields with one space between each, or a nickname such as `@daily`.
        zone: whose wall clock it goes by.
    """

    text: str
    zone: ZoneInfo

    @property
    def is_reboot(self) -> bool:
        """Whether it is due when the host starts: at no time that can be told."""
        return self.text == REBOOT

    def words(self) -> str:
        """Return it in words."""
        return "When the host starts" if self.is_reboot else str(self._fields.explain())

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """
        Yield when it is due after a moment and until another, which is included; in UTC, oldest first.

        A fixed time that the clock skips is due when the clock goes on; one that it shows twice is due the first time.
        A schedule whose minute or hour begins with a star goes by the clock as it is.
        """
        if self.is_reboot:
            return
        last = after.astimezone(UTC)
        # What the clock skips before midnight is due after it.
        day = last.astimezone(self.zone).date() - _DAY
        while day <= until.astimezone(self.zone).date():
            for moment in self._on(day):
                if last < moment <= until:
                    yield moment
                    last = moment
            day += _DAY

    def next(self, after: datetime) -> datetime | None:
        """Return when it is due first after a moment, in UTC; None if that cannot be told."""
        return next(self.between(after, after + _REACH), None)

    def upcoming(self, after_ns: int, count: int) -> list[int]:
        """Return when it is due first after a moment, so many times at most, as Unix times in nanoseconds."""
        after = datetime.fromtimestamp(after_ns // 10**9, UTC)
        return [int(moment.timestamp()) * 10**9 for moment in islice(self.between(after, after + _REACH), count)]

    def latest(self, at: datetime) -> datetime | None:
        """Return when it was due last, at a moment or before, in UTC; None if that cannot be told."""
        if self.is_reboot:
            return None
        day = at.astimezone(self.zone).date()
        for back in range(_REACH.days):
            # What the clock skips before midnight is due after it.
            days = (day - back * _DAY, day - (back + 1) * _DAY)
            if found := [moment for one in days for moment in self._on(one) if moment <= at]:
                return max(found)
        return None

    @cached_property
    def _fields(self) -> CronSim:
        return _parsed(NICKNAMES.get(self.text, self.text))

    @cached_property
    def _times(self) -> list[time]:
        return [time(hour, minute) for hour in sorted(self._fields.hours) for minute in sorted(self._fields.minutes)]

    @cached_property
    def _goes_by_the_clock(self) -> bool:
        minute, hour = NICKNAMES.get(self.text, self.text).split()[:2]
        return minute.startswith("*") or hour.startswith("*")

    def _on(self, day: date) -> list[datetime]:
        """Return the moments that a day has, oldest first; some may be those of another day, too."""
        if day.month not in self._fields.months or not self._fields.match_day(day):
            return []
        local = [datetime.combine(day, at) for at in self._times]
        offset = datetime.combine(day, _MIDNIGHT, self.zone).utcoffset()
        if offset is not None and offset == datetime.combine(day + _DAY, _MIDNIGHT_AGAIN, self.zone).utcoffset():
            # On all days but two of a year.
            return [(one - offset).replace(tzinfo=UTC) for one in local]
        if self._goes_by_the_clock:
            return sorted({moment for one in local for moment in _moments(one, self.zone)})
        return sorted({_first(one, self.zone) for one in local})


def parse(text: str, zone: ZoneInfo | None = None) -> Schedule:
    """
    Read a schedule as it is written in a crontab.

    Args:
        text: five fields, or a nickname.
        zone: whose wall clock it goes by; default: this host's.

    Raises:
        ScheduleError: naming what is wrong, the value and the remedy.
    """
    plain = " ".join(re.split(r"[ \t]+", text.strip(" \t")))
    if plain.startswith("@"):
        if plain not in NICKNAMES and plain != REBOOT:
            raise _error(plain, f"no such nickname; write one of {', '.join((*NICKNAMES, REBOOT))}")
    else:
        _parsed(plain)
    return Schedule(plain, zone or local_zone())


def zone_of(name: str) -> ZoneInfo:
    """
    Return a time zone by its IANA name.

    Raises:
        ScheduleError: if there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleError(f"time zone {name!r} is unknown: write an IANA name, for example Europe/London") from None


def local_zone() -> ZoneInfo:
    """Return this host's time zone, as cron has it: `TZ`, else what /etc/localtime is."""
    name = os.environ.get("TZ", "").removeprefix(":")
    for known in (name, str(Path("/etc/localtime").resolve()).rpartition("/zoneinfo/")[2]):
        try:
            return ZoneInfo(known)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue
    try:
        with Path("/etc/localtime").open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return ZoneInfo("UTC")


@cache
def _parsed(text: str) -> CronSim:
    from cronsim import CronSim, CronSimError

    fields = text.split(" ")
    if len(fields) != len(_FIELDS):
        raise _error(text, "not five fields; write minute, hour, day of month, month and day of week: 10 3 * * *")
    for value, (name, meant, greatest, names) in zip(fields, _FIELDS, strict=True):
        one = rf"(?:\d{{1,4}}{'|' if names else ''}{names})"
        item = rf"(?:\*|{one}(?:-{one})?)(?:/\d{{1,4}})?"
        if not re.fullmatch(rf"{item}(?:,{item})*", value, re.IGNORECASE | re.ASCII):
            raise _error(text, f"{name} {value!r} is not {meant}; write for example * or */2 or 1-5 or 1,3")
        if alone := _STEP_ALONE.search(value):
            # Some crons take it for the rest of the range, some for the number alone; Debian's refuses it.
            raise _error(text, f"{name} {value!r} has a step without a range; write {alone[1]}-{greatest}/{alone[2]}")
    # Of a range with one value, CronSim takes a step as one to the end of all values.
    plain = " ".join(
        _STEP_OF_RANGE.sub(partial(_single, names), value)
        for value, (_, _, _, names) in zip(fields, _FIELDS, strict=True)
    )
    try:
        return CronSim(plain, datetime(2000, 1, 1))  # noqa: DTZ001  (only read, never advanced)
    except CronSimError as error:
        place = [name for name, *_ in _FIELDS].index(str(error).removeprefix("Bad ").replace("-", " "))
        name, meant, _, _ = _FIELDS[place]
        raise _error(text, f"{name} {fields[place]!r} is not {meant}, or never comes; write for example *") from None


def _single(names: str, found: re.Match[str]) -> str:
    """Return a range with a step, or its value if it has only one."""
    known = names.split("|")
    # Months begin with 1, days of the week with 0.
    first, last = (
        known.index(end.lower()) + (names == _MONTHS) if end.lower() in known else int(end) for end in found.groups()
    )
    return found[1] if first == last else found[0]


def _error(text: str, remedy: str) -> ScheduleError:
    return ScheduleError(f"schedule {text!r} is wrong: {remedy}")


def _moments(local: datetime, zone: ZoneInfo) -> list[datetime]:
    """Return the moments at which the clock shows a time: none, one or two."""
    found = [local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    return [one for one in found if one.astimezone(zone).replace(tzinfo=None) == local]


def _first(local: datetime, zone: ZoneInfo) -> datetime:
    """Return the first moment at which the clock shows a time, or goes on if it skips it."""
    while not (found := _moments(local, zone)):
        local += _MINUTE
    return found[0]
