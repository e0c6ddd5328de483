"""
How one objective is written and read: durations, times of day, ratios and counts, each parsed strictly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from batch_observability import config

_DURATION = re.compile(r"(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+(?:\.\d+)?)s)?")
_FINISH_BY = re.compile(r"(?:\+(\d{1,2})d\s+)?(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\s+(\S+))?")


class ModelError(ValueError):
    """A batch model or one of its objectives is written wrongly. The message is one line for the user."""


@dataclass(frozen=True, eq=False)
class FinishBy:
    """
    A wall clock time that a run must not be later than, relative to the date that the run is due on.

    Attributes:
        at: time of day, with its time zone.
        days: days after the due date, 0 to 99.
    """

    at: time
    days: int = 0

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ModelError("without a time zone; write for example '06:30 Europe/London'")
        if not 0 <= self.days <= 99:
            raise ModelError("not 0 to 99 days after the due date; write for example '+1d 06:30 Europe/London'")

    def __eq__(self, other: object) -> bool:
        # To datetime all zones with summer time are the same for a time without a date.
        return isinstance(other, FinishBy) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @classmethod
    def parse(cls, text: str) -> FinishBy:
        """Read `HH:MM[:SS] [zone]`, with `+Nd` before it for a later day. The zone is UTC, unless `strict` is set."""
        match = _FINISH_BY.fullmatch(text.strip())
        if not match:
            raise ModelError("not a time of day; write HH:MM and a time zone, for example 06:30 Europe/London")
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        days, hour, minute, second, zone = match.groups()
        if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59:
            raise ModelError("not a time of day; write HH:MM from 00:00 to 23:59, for example 06:30 Europe/London")
        if zone is None and config.is_strict():
            raise ModelError("without a time zone, and `strict` is set; write for example 06:30 Europe/London")
        try:
            tzinfo = ZoneInfo(zone or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder, or too long a name, is an OSError
            raise ModelError(f"unknown time zone {zone!r}; write an IANA name, for example Europe/London") from None
        return cls(time(int(hour), int(minute), int(second or 0), tzinfo=tzinfo), int(days or 0))

    def on(self, due: datetime) -> datetime:
        """
        Return the moment that is meant for a run that is due at an aware time: counted from its date in this zone.

        A time that the clocks skip or show twice is taken with the offset from before they change (PEP 495, fold 0).
        """
        day: date = due.astimezone(self.at.tzinfo).date()
        return datetime.combine(day + timedelta(days=self.days), self.at)

    def __str__(self) -> str:
        clock = self.at.strftime("%H:%M:%S" if self.at.second else "%H:%M")
        return f"{f'+{self.days}d ' if self.days else ''}{clock} {self.at.tzinfo}"


def parse_duration(value: str | timedelta) -> timedelta:
    """Read a duration such as `90s`, `15m`, `1h30m` or `2d`; a `timedelta` passes. It must be positive."""
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if not match or not value.strip():
            raise ModelError("not a duration; write for example 90s, 15m, 1h30m or 2d")
        days, hours, minutes = (int(number[:20]) if number else 0 for number in match.groups()[:3])
        try:
            value = timedelta(days=days, hours=hours, minutes=minutes, seconds=float(match[4] or 0))
        except OverflowError:
            raise ModelError("longer than a duration can be; write a shorter one, for example 2d") from None
    if not isinstance(value, timedelta):
        raise ModelError("not a duration; write for example 15m, or a datetime.timedelta")
    if value <= timedelta(0):
        raise ModelError("not positive; write for example 15m")
    return value


def format_duration(value: timedelta) -> str:
    """Write a duration as `parse_duration` reads it."""
    days, rest = value.days, value.seconds
    parts = [(days, "d"), (rest // 3600, "h"), (rest % 3600 // 60, "m")]
    seconds = f"{rest % 60}.{value.microseconds:06d}".rstrip("0").rstrip(".")
    text = "".join(f"{number}{unit}" for number, unit in parts if number)
    return f"{text}{seconds}s" if seconds != "0" or not text else text


def _parse_finish_by(value: Any) -> FinishBy:
    if isinstance(value, FinishBy):
        return value
    if not isinstance(value, str):
        raise ModelError("not a time of day; write for example '06:30 Europe/London'")
    return FinishBy.parse(value)


def _parse_ratio(value: Any) -> float:
    text = value.strip() if isinstance(value, str) else value
    try:
        if isinstance(text, bool):
            raise TypeError  # noqa: TRY301  (True is 1 to Python, and a mistake here)
        number = float(text[:-1]) / 100 if isinstance(text, str) and text.endswith("%") else float(text)
    except (TypeError, ValueError, OverflowError):
        raise ModelError("not a ratio; write a number from 0 to 1, or a percentage such as 99%") from None
    if not 0 <= number <= 1:
        raise ModelError("not between 0 and 1; write for example 0.99 or 99%")
    return number


def _parse_positive_ratio(value: Any) -> float:
    number = _parse_ratio(value)
    if number == 0:
        raise ModelError("zero promises nothing; write a number above 0 and up to 1, for example 0.8")
    return number


def _parse_count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ModelError("not a whole number; write for example 1000")
    try:
        number = int(value)
    except ValueError:
        raise ModelError("not a whole number; write for example 1000") from None
    if number < 0:
        raise ModelError("negative; write 0 or more")
    return number


def _parse_flag(value: Any) -> bool:
    words = {"true": True, "false": False}
    flag = words.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise ModelError("neither true nor false; write True or False")
    return flag


PARSERS: dict[str, Callable[[Any], Any]] = {
    "start_within": parse_duration,
    "finish_within": parse_duration,
    "finish_by": _parse_finish_by,
    "min_duration": parse_duration,
    "freshness": parse_duration,
    "min_rows": _parse_count,
    "max_rejected_ratio": _parse_ratio,
    "success_rate": _parse_positive_ratio,
    "window": parse_duration,
    "warn_at": _parse_positive_ratio,
    "judge_backfills": _parse_flag,
}
# In this order they are bits of a mask in the ledger: add to the end only.
OBJECTIVES = (
    "start_within",
    "finish_within",
    "finish_by",
    "min_duration",
    "freshness",
    "min_rows",
    "max_rejected_ratio",
    "success_rate",
)
# How an objective is judged, not what is promised.
TERMS = ("window", "warn_at", "judge_backfills")
