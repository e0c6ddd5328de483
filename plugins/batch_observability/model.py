"""
What a batch model is and what it promises: plain values, validated where they are written.

A mistake is found when the DAG file is parsed, not when the first run is late, and is told in one line that names
the field, the value and what to write instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_DURATION = re.compile(r"(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+(?:\.\d+)?)s)?")
_FINISH_BY = re.compile(r"(?:\+(\d{1,2})d\s+)?(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\s+(\S+))?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-/]*")
# Datadog's limits: 100 characters for a service, 200 for a tag with its key.
_MAX_NAME = 100


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
        """Read `HH:MM[:SS] [zone]`, with `+Nd` before it for a later day; the zone defaults to UTC."""
        match = _FINISH_BY.fullmatch(text.strip())
        if not match:
            raise ModelError("not a time of day; write HH:MM and a time zone, for example 06:30 Europe/London")
        days, hour, minute, second, zone = match.groups()
        if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59:
            raise ModelError("not a time of day; write HH:MM from 00:00 to 23:59, for example 06:30 Europe/London")
        try:
            tzinfo = ZoneInfo(zone or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder, or too long a name, is an OSError
            raise ModelError(f"unknown time zone {zone!r}; write an IANA name, for example Europe/London") from None
        return cls(time(int(hour), int(minute), int(second or 0), tzinfo=tzinfo), int(days or 0))

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


_PARSERS = {
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
}
# How an objective is judged, not what is promised.
_TERMS = ("window", "warn_at")


@dataclass(frozen=True, kw_only=True)
class SLA:
    """
    What a batch model promises. Every objective is optional; strings are parsed strictly.

    Attributes:
        start_within: due time to start.
        finish_within: start of the first try to the end of the last.
        finish_by: wall clock with zone and day offset, `06:30 Europe/London` or `+1d 02:00 UTC`.
        min_duration: a run that is faster has probably done nothing.
        freshness: greatest age of the newest success.
        min_rows: fewest rows written.
        max_rejected_ratio: rejected rows over rows read, 0 to 1.
        success_rate: successful runs over all runs in `window`, 0 to 1 or a percentage.
        window: what `success_rate` is taken over, default 30 days.
        warn_at: fraction of an objective that may be used up before the run is at risk, default 0.8.

    Raises:
        ModelError: naming the objective, the value and the remedy.
    """

    start_within: timedelta | str | None = None
    finish_within: timedelta | str | None = None
    finish_by: FinishBy | str | None = None
    min_duration: timedelta | str | None = None
    freshness: timedelta | str | None = None
    min_rows: int | None = None
    max_rejected_ratio: float | str | None = None
    success_rate: float | str | None = None
    window: timedelta | str = timedelta(days=30)
    warn_at: float | str = 0.8

    def __post_init__(self) -> None:
        for name, parse in _PARSERS.items():
            value = getattr(self, name)
            if value is None and name not in _TERMS:
                continue
            try:
                object.__setattr__(self, name, parse(value))
            except ModelError as error:
                raise ModelError(f"SLA {name!r} is {value!r}: {error}") from None

    def objectives(self) -> dict[str, str]:
        """Name and promise of each objective that is set, as text: `{"finish_within": "20m"}`."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _TERMS}
        return {
            name: format_duration(value) if isinstance(value, timedelta) else str(value)
            for name, value in values.items()
            if value is not None
        }


@dataclass(frozen=True)
class BatchModel:
    """
    A batch model: what it is called, who answers for it, and what it promises.

    Attributes:
        name: letters, digits and `_ . - /`; the same in every environment.
        version: of the model, not of a run: no date, no run id (each value makes new metric series).
        service: Datadog service or OpenTelemetry `service.name`; default: the name.
        owner: the team that answers for it; a model may be declared before it has one.
        tier: how much it matters; a number from 1 (most) or a short label.
        sla: what it promises; a mapping is read as `SLA(**mapping)`.
        description: one line.
        runbook: URL of what to do when it fails.

    Raises:
        ModelError: naming the model, the field, the value and the remedy.
    """

    name: str
    version: str = "0"
    service: str = ""
    owner: str = ""
    tier: int | str = 3
    sla: SLA | None = None
    description: str = ""
    runbook: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or len(self.name) > _MAX_NAME:
            raise ModelError(
                f"batch model name is {self.name!r}: write up to {_MAX_NAME} letters, digits and _ . - /, "
                "for example churn-score"
            )
        self._set("service", self.service or self.name)
        self._check("service", _NAME, "write up to 100 letters, digits and _ . - /, for example churn")
        if isinstance(self.version, int | float) and not isinstance(self.version, bool) and math.isfinite(self.version):
            self._set("version", str(self.version))
        self._check(
            "version",
            re.compile(r"[^\s,|#]+"),
            "write a version without spaces, up to 100 characters, for example '1.4'",
        )
        remedy = "name the team that answers for it in up to 100 characters, for example 'team-risk'"
        self._check("owner", re.compile(r"[^\n\r,|]*"), remedy)
        label = str(self.tier) if isinstance(self.tier, int | str) and not isinstance(self.tier, bool) else ""
        if not re.fullmatch(r"(?!0+$)[A-Za-z0-9][\w.\-]{0,49}", label):
            raise self._error("tier", "write a number from 1 or a short label, for example 1")
        if isinstance(self.sla, Mapping):
            self._set("sla", self._sla_from(self.sla))
        if self.sla is not None and not isinstance(self.sla, SLA):
            raise self._error("sla", "write SLA(finish_within='20m')")
        for field in ("description", "runbook"):
            if not isinstance(getattr(self, field), str):
                raise self._error(field, "write text")

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    def _error(self, field: str, remedy: str) -> ModelError:
        return ModelError(f"{field} of batch model {self.name!r} is {getattr(self, field)!r}: {remedy}")

    def _check(self, field: str, pattern: re.Pattern[str], remedy: str) -> None:
        value = getattr(self, field)
        if not isinstance(value, str) or not pattern.fullmatch(value) or len(value) > _MAX_NAME:
            raise self._error(field, remedy)

    def _sla_from(self, mapping: Mapping[str, Any]) -> SLA:
        unknown = sorted(set(mapping) - set(_PARSERS), key=str)
        if unknown:
            raise ModelError(f"SLA of batch model {self.name!r} has {unknown[0]!r}: write one of {', '.join(_PARSERS)}")
        try:
            return SLA(**mapping)
        except ModelError as error:
            raise ModelError(f"{str(error).replace(' is ', f' of model {self.name!r} is ', 1)}") from None

    def objectives(self) -> dict[str, str]:
        """Name and promise of each objective of the SLA, as text."""
        return self.sla.objectives() if self.sla else {}
