"""
A second of its own for each value of a metric that goes to Datadog's intake without an Agent.

There the last of several values with the same name, tags and second is kept, and the others are lost, counts too. An
Agent adds them up before; runs of one model that end at the same moment, each with a process of its own, have nobody to
do so. So who sends takes, under a lock that all senders of a state folder share, a second in which nobody has sent the
same series yet. Other hosts send other series: their names are part of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from batch_observability.export.signals import Point
from batch_observability.private import private_folder

log = logging.getLogger("batch_observability.export")

# Datadog takes what is up to an hour old: https://docs.datadoghq.com/api/latest/metrics/#submit-metrics
WINDOW_S = 3000
_FILE = "seconds.db"
_WAIT_S = 5.0
_SCHEMA = (
    # A lost claim costs little, and no promise waits for the disk.
    "PRAGMA synchronous = OFF",
    "CREATE TABLE IF NOT EXISTS claim (series TEXT, second INTEGER, PRIMARY KEY (series, second)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS claim_second ON claim (second)",
)


class Seconds:
    """
    The seconds that were taken on this host.

    Args:
        folder: that all processes share which send the same series.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE

    def take(self, points: Iterable[Point]) -> int | None:
        """
        Take the newest second in which none of these points was sent before.

        Returns:
            A Unix time, at most `WINDOW_S` ago; None if each of these seconds is taken.
        """
        now = int(time.time())
        series = sorted({_series(point) for point in points})
        try:
            return self._take(series, now)
        except (OSError, sqlite3.Error) as error:
            # That a value is there is worth more than that none can overwrite it.
            log.warning("%s cannot be used, and counts of the same second may be lost: %s", self._path, error)
            if not isinstance(error, OSError | sqlite3.OperationalError):
                # It is no database any more.
                with suppress(OSError):
                    self._path.unlink()
            return now

    def _take(self, series: list[str], now: int) -> int | None:
        private_folder(self._path.parent)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)) as database:
            for statement in _SCHEMA:
                database.execute(statement)
            database.execute("BEGIN IMMEDIATE")
            database.execute("DELETE FROM claim WHERE second <= ?", (now - WINDOW_S,))
            wanted = "series IN (SELECT value FROM json_each(?))"
            rows = database.execute(f"SELECT second FROM claim WHERE {wanted}", (json.dumps(series),))  # noqa: S608  (a constant)
            taken = {second for (second,) in rows}
            free = next((second for second in range(now, now - WINDOW_S, -1) if second not in taken), None)
            if free is not None:
                database.executemany("INSERT INTO claim VALUES (?, ?)", [(one, free) for one in series])
            database.execute("COMMIT")
        return free


def _series(point: Point) -> str:
    """Return what is the same for values that would overwrite each other."""
    name = json.dumps([point.metric.name, sorted(point.tags.items())])
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
