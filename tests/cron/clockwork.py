"""
Cron's own clockwork, minute by minute (cron.c of Debian's cron, main): what the due times of schedules are judged by.

It shares no code with what it judges: fields are read by hand, and no day is ever walked but by its minutes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MINUTE = timedelta(minutes=1)
# It takes a jump of the clock of up to three hours for a change of summer time.
MEDIUM = 180


def values(field, low, high, names=()):
    """Return the numbers that a field means."""
    found = set()
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        ends = (str(low), str(high)) if span == "*" else (span.split("-") * 2)[:2]
        first, last = (names.index(end) + low if end in names else int(end) for end in ends)
        found |= set(range(first, last + 1, int(step or 1)))
    return found


class Entry:
    """A line of a crontab as cron holds it."""

    def __init__(self, text):
        self.text = text
        minute, hour, day, month, weekday = NICKNAMES.get(text, text).split()
        self.minutes = values(minute, 0, 59)
        self.hours = values(hour, 0, 23)
        self.days = values(day, 1, 31)
        self.months = values(month, 1, 12, MONTHS)
        self.weekdays = {number % 7 for number in values(weekday, 0, 7, DAYS)}
        self.wild = minute[0] == "*" or hour[0] == "*"
        self.both = day[0] == "*" or weekday[0] == "*"

    def is_on(self, local):
        """Whether it is due on the day of a time."""
        in_month, in_week = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return local.month in self.months and (in_month and in_week if self.both else in_month or in_week)


def due_times(texts, zone, after, until):
    """Return by text the moments of all minutes after one and until another at which cron starts a job."""
    entries = [Entry(text) for text in texts]
    by_minute = [
        [entry for entry in entries if at % 60 in entry.minutes and at // 60 in entry.hours] for at in range(1440)
    ]
    found = {text: [] for text in texts}
    moment = after
    virtual = wall(moment, zone)
    while moment < until:
        moment += MINUTE
        now = wall(moment, zone)
        jump = round((now - virtual) / MINUTE)

        def start(local, *, wild, fixed, at=moment):
            for entry in by_minute[local.hour * 60 + local.minute]:
                if (wild if entry.wild else fixed) and entry.is_on(local) and at not in found[entry.text][-1:]:
                    found[entry.text].append(at)

        if jump == 1:
            start(now, wild=True, fixed=True)
            virtual = now
        elif 1 < jump < MEDIUM:
            start(now, wild=True, fixed=False)
            while virtual < now:
                virtual += MINUTE
                start(virtual, wild=False, fixed=True)
        elif -MEDIUM < jump <= 0:
            start(now, wild=True, fixed=False)
        else:
            start(now, wild=True, fixed=True)
            virtual = now
    return found


def wall(moment, zone):
    """Return what the clock of a zone shows."""
    return moment.astimezone(zone).replace(tzinfo=None)


def year(number):
    """Return the begin and the end of a year."""
    return datetime(number, 1, 1, tzinfo=UTC), datetime(number + 1, 1, 1, tzinfo=UTC)
