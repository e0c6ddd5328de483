"""When cron expressions are due over a whole year, in zones that change their clocks in every way there is."""

from __future__ import annotations

import pytest

from batch_observability.cron.schedule import parse, zone_of
from tests.cron.clockwork import due_times, year
from tests.cron.test_schedule import TEXTS, ZONES


@pytest.mark.parametrize("name", ZONES)
def test_a_schedule_is_due_when_cron_starts_it(name):
    zone = zone_of(name)
    after, until = year(2026)
    meant = due_times(TEXTS, zone, after, until)
    for text in TEXTS:
        assert list(parse(text, zone).between(after, until)) == meant[text], text
