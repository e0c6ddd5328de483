"""
What the clocks on the walls of a few places show, by the C library, to compare our own reckoning with.

Nothing here goes from a local time to a moment as `zoneinfo` does: the clock is read at every quarter of an hour of a
year (no clock has changed at another moment since 1972), and a local time is looked for among what it shows.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from zoneinfo import TZPATH

QUARTER_S, DAY_S = 900, 86_400
# From the first of December 2025 to the last day of March 2027.
BEGIN_S, QUARTERS = 1_764_547_200, 486 * 96
# The clocks are never further ahead of UTC than that.
_AHEAD_S = 16 * 3600


class Wall:
    """The clock of one place. Local times are seconds since 1970-01-01 00:00 as that clock would count them."""

    def __init__(self, zone: str) -> None:
        with _place(zone):
            self._offsets = [time.localtime(BEGIN_S + QUARTER_S * n).tm_gmtoff for n in range(QUARTERS)]

    def shows(self, moment_s: int) -> int:
        """Return what it shows at a moment."""
        return moment_s + self._offsets[(moment_s - BEGIN_S) // QUARTER_S]

    def date(self, moment_s: int) -> int:
        """Return the date that it is there at a moment, in days since 1970-01-01."""
        return self.shows(moment_s) // DAY_S

    def first_shows(self, local_s: int) -> int:
        """
        Return the moment at which it shows a local time, the first if it does twice.

        If it never does, because it is skipped: when a clock would that nobody had put forward.
        """
        quarter = (local_s - _AHEAD_S - BEGIN_S) // QUARTER_S * QUARTER_S + BEGIN_S
        while self.shows(quarter + QUARTER_S - 1) < local_s:
            quarter += QUARTER_S
        if self.shows(quarter) > local_s:
            last = quarter - 1
            return last + local_s - self.shows(last)
        return quarter + local_s - self.shows(quarter)

    def changes(self) -> list[tuple[int, int]]:
        """Return the moments at which the clock is changed, and by how many seconds."""
        pairs = zip(self._offsets, self._offsets[1:], strict=False)
        return [
            (BEGIN_S + QUARTER_S * (n + 1), after - before)
            for n, (before, after) in enumerate(pairs)
            if after != before
        ]


@cache
def wall(zone: str) -> Wall:
    """Return the clock of a place."""
    return Wall(zone)


@contextmanager
def _place(zone: str):
    """Be in a time zone, as the C library sees it."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = f":{_file(zone)}"
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


def _file(zone: str) -> Path:
    packaged = [Path(str(resources.files("tzdata").joinpath("zoneinfo", zone)))] if _has_tzdata() else []
    known = [Path(folder, zone) for folder in TZPATH] + packaged
    return next(path for path in known if path.is_file())


def _has_tzdata() -> bool:
    try:
        import tzdata  # noqa: F401
    except ImportError:
        return False
    return True
