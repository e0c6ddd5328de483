"""
How often a model runs, as far as the catalog knows it, and what follows for monitors: how far back they look, and after
how long a silence is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise

from batch_observability.catalog import Cataloged
from batch_observability.cron.schedule import ScheduleError, parse, zone_of

# Slots are looked at from a Friday on, so that those of a working week show their weekend; the same for ever, so that
# what is rendered does not change by itself.
_FROM = datetime(2024, 1, 5, tzinfo=UTC)
_REACH = timedelta(days=100)
_SLOTS = 1600
_HOUR = timedelta(hours=1)
# The longest window of a metric monitor by the API: `last_168h`.
_LONGEST_H = 168
_UNKNOWN_H, _GREATEST_H = 4, 12


@dataclass(frozen=True)
class Cadence:
    """Least and greatest time between two slots of a schedule."""

    least: timedelta
    greatest: timedelta


def cadence(entry: Cataloged) -> Cadence | None:
    """Return how often a cron job is due; None where that is not known."""
    return _of_schedule(entry.schedule, entry.timezone or "UTC") if entry.schedule else None


@cache
def _of_schedule(text: str, zone: str) -> Cadence | None:
    try:
        schedule = parse(text, zone_of(zone))
    except ScheduleError:
        # Told by `batchobs lint` and by who runs it.
        return None
    slots = list(islice(schedule.between(_FROM, _FROM + _REACH), _SLOTS))
    gaps = [later - earlier for earlier, later in pairwise(slots)]
    return Cadence(min(gaps), max(gaps)) if gaps else None


def window_h(entry: Cataloged) -> int:
    """
    Return how many hours back a monitor looks for what went wrong.

    Half of the time between two runs: what fails today and again tomorrow is told on both days. Below a day Datadog
    evaluates each minute, above it each ten.
    """
    known = cadence(entry)
    return max(1, min(_GREATEST_H, math.floor(known.least / _HOUR / 2))) if known else _UNKNOWN_H


def silence_h(entry: Cataloged) -> int | None:
    """
    Return after how many hours without a run something is wrong; None where nobody can tell.

    The greatest time between two slots, or the freshness that is promised, and an hour or a tenth of it on top.
    """
    known = cadence(entry)
    promised = entry.model.sla.freshness if entry.model.sla else None
    longest = known.greatest if known else promised
    if not isinstance(longest, timedelta):
        return None
    hours = math.ceil((longest + max(_HOUR, longest / 10)) / _HOUR)
    return hours if hours <= _LONGEST_H else None
