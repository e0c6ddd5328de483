"""
The clock of a run that goes on: which of its promises are at risk or broken at a moment, each once.
"""

from __future__ import annotations

from collections.abc import Mapping

from batch_observability.sla.promises import Deadline
from batch_observability.sla.telling import AT_RISK, BROKEN

Due = tuple[str, Deadline]


class Clock:
    """Rings for each promise twice at most: when it is at risk, and when it is broken."""

    def __init__(self, deadlines: Mapping[str, Deadline]) -> None:
        self._deadlines = dict(deadlines)
        self._rung: set[tuple[str, str]] = set()

    def move(self, deadlines: Mapping[str, Deadline]) -> None:
        """Take over promises that were moved; what has rung does not ring again."""
        self._deadlines = dict(deadlines)

    @property
    def next_ns(self) -> int | None:
        """When it rings next, as Unix time in nanoseconds; None if it does not."""
        waiting = [
            moment
            for one in self._deadlines.values()
            for state, moment in ((AT_RISK, one.warn_ns), (BROKEN, one.at_ns))
            if (one.objective, state) not in self._rung and (one.objective, BROKEN) not in self._rung
        ]
        return min(waiting, default=None)

    def ring(self, now_ns: int) -> list[Due]:
        """Return what is at risk or broken by now and has not been told. What is broken is no longer at risk."""
        due = []
        for one in self._deadlines.values():
            state = BROKEN if now_ns > one.at_ns else AT_RISK if now_ns >= one.warn_ns else ""
            if state and (one.objective, state) not in self._rung and (one.objective, BROKEN) not in self._rung:
                self._rung.add((one.objective, state))
                due.append((state, one))
        return due
