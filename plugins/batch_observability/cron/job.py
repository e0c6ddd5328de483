"""
A job as it is asked for: its command, the batch model that it runs, and how it is to be run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from batch_observability.model import BatchModel

ALLOW, SKIP, WAIT = "allow", "skip", "wait"
OVERLAPS = (ALLOW, SKIP, WAIT)


class Job(NamedTuple):
    """
    A job.

    Attributes:
        words: the command and its arguments.
        model: what it runs; the job has its name.
        timeout: how long one attempt may take.
        grace: how long it may take to end when it is asked to.
        overlap: `allow`, `skip` or `wait`, if the run before still goes on.
        retries: attempts after the first.
        env_file: variables that it gets, and that settings of ours may stand in; "" for none.
        instrument: switch on OpenTelemetry's instrumentations in its Python processes.
        schedule, timezone: when it is due, as cron writes it; "" if that is not known, or for the host's zone.
    """

    words: Sequence[str]
    model: BatchModel
    timeout: timedelta | None = None
    grace: timedelta = timedelta(seconds=30)
    overlap: str = ALLOW
    retries: int = 0
    env_file: str = ""
    instrument: bool = False
    schedule: str = ""
    timezone: str = ""

    @property
    def name(self) -> str:
        """Name of the job."""
        return self.model.name
