"""
Flood control: identical lines are collapsed into one with a count, after a burst, below ERROR, and never silently.

The line after the burst says that it stands for those to come. How many came is told every ten seconds, when the
window is over, and at the end. Where memory for counting runs out, lines pass.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from contextlib import suppress
from enum import Enum
from typing import Any

WINDOW_S = 60.0
TELL_EVERY_S = 10.0
# Lines that are counted at once; and those of them that are collapsed, of which a copy is kept.
_MAX_COUNTED = 4096
_MAX_COLLAPSED = 100


class Verdict(Enum):
    """What is to be done with a line."""

    PASS = "pass"  # noqa: S105 - no password
    COLLAPSE = "collapse"  # write it, and say in it that those to come are collapsed
    DROP = "drop"


class _Collapsed:
    """Lines that are dropped: one that stands for them, how many there were since the last telling, when to tell."""

    __slots__ = ("line", "repeated", "tell_at")

    def __init__(self, line: Any, tell_at: float) -> None:
        self.line = line
        self.repeated = 0
        self.tell_at = tell_at


class Flood:
    """
    Counts identical lines. Safe in threads and signal handlers; a forked child starts with no counts.

    Args:
        burst: identical lines that pass in a window; 0: all.
        tell: called with the line that stands for others, and how many were dropped since; in any thread.
        window_s: seconds, from the first of identical lines.
        every_s: seconds between two tellings.
        clock: seconds, never backwards.
    """

    def __init__(
        self,
        burst: int,
        tell: Callable[[Any, int], None],
        *,
        window_s: float = WINDOW_S,
        every_s: float = TELL_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._tell = tell
        self._window_s = window_s
        self._every_s = every_s
        self._clock = clock
        self._reset()
        _floods.add(self)

    def _reset(self) -> None:
        # Reentrant: a signal handler may log while we count.
        self._lock = threading.RLock()
        # By the hash of what makes lines identical: how many there were, and the end of their window.
        self._counts: dict[int, list[float]] = {}
        self._collapsed: dict[int, _Collapsed] = {}
        self._wake = threading.Event()
        self._teller: threading.Thread | None = None
        self._finishes = False

    def weigh(self, key: Hashable | None, line: Callable[[], Any], level: int = logging.INFO) -> Verdict:
        """
        Count a line and say what is to be done with it. Never raises.

        Args:
            key: equal for identical lines: logger, level, message and fields, without the time; None if that cannot
                be told: such a line passes.
            line: makes what `tell` gets, if this is the line that stands for others.
            level: its level as a number; from ERROR on all lines pass.
        """
        if not self._burst or level >= logging.ERROR or key is None:
            return Verdict.PASS
        try:
            mark = hash(key)
            now = self._clock()
            with self._lock:
                verdict, due = self._count(mark, line, now)
            self._tell_each(due)
            if verdict is Verdict.COLLAPSE:
                self._see_to_telling()
        except Exception:
            # What cannot be counted passes.
            return Verdict.PASS
        return verdict

    def finish(self) -> None:
        """Tell what was dropped and not told yet, and begin anew: at the end of a run, and of the process."""
        with self._lock:
            due = [self._taken(mark) for mark in list(self._collapsed)]
            self._counts.clear()
            self._wake.set()
        self._tell_each(due)

    def _count(self, mark: int, line: Callable[[], Any], now: float) -> tuple[Verdict, list[tuple[Any, int]]]:
        count = self._counts.get(mark)
        if count is None or now >= count[1]:
            due = [self._taken(mark)] if mark in self._collapsed else []
            if len(self._counts) >= _MAX_COUNTED:
                # What is counted from one again passes for longer: nothing is lost.
                self._counts = {kept: self._counts[kept] for kept in self._collapsed}
            self._counts[mark] = [1, now + self._window_s]
            return Verdict.PASS, due
        count[0] += 1
        if count[0] <= self._burst:
            return Verdict.PASS, []
        if mark in self._collapsed:
            collapsed = self._collapsed[mark]
            collapsed.repeated += 1
            return Verdict.DROP, self._due(mark, now)
        if len(self._collapsed) >= _MAX_COLLAPSED:
            return Verdict.PASS, []
        self._collapsed[mark] = _Collapsed(line(), min(now + self._every_s, count[1]))
        return Verdict.COLLAPSE, []

    # --- Telling ------------------------------------------------------------------------------------------------

    def _taken(self, mark: int) -> tuple[Any, int]:
        collapsed = self._collapsed.pop(mark)
        return collapsed.line, collapsed.repeated

    def _due(self, mark: int, now: float) -> list[tuple[Any, int]]:
        collapsed, end = self._collapsed[mark], self._counts[mark][1]
        if now < collapsed.tell_at:
            return []
        if now >= end:
            del self._counts[mark]
            return [self._taken(mark)]
        repeated, collapsed.repeated = collapsed.repeated, 0
        collapsed.tell_at = min(now + self._every_s, end)
        return [(collapsed.line, repeated)]

    def _tell_each(self, due: list[tuple[Any, int]]) -> None:
        # Not under the lock: who tells takes locks of handlers, whose holders may be waiting for ours.
        for line, repeated in due:
            if repeated:
                with suppress(Exception):
                    self._tell(line, repeated)

    def _see_to_telling(self) -> None:
        """Have it told when no more lines come: by a thread while there is something, and at the end of the process."""
        with self._lock:
            if not self._finishes:
                self._finishes = True
                atexit.register(self.finish)
                # A child of multiprocessing leaves without atexit.
                if processes := sys.modules.get("multiprocessing.util"):
                    processes.Finalize(None, self.finish, exitpriority=0)
            if self._teller is None:
                teller = threading.Thread(target=self._tell_in_time, name="batchobs-flood", daemon=True)
                # None can be had at the end of the process, which tells all.
                with suppress(RuntimeError):
                    teller.start()
                    self._teller = teller

    def _tell_in_time(self) -> None:
        waiting = True
        while waiting:
            with self._lock:
                now = self._clock()
                due = [told for mark in list(self._collapsed) for told in self._due(mark, now)]
                wait_s = min((each.tell_at for each in self._collapsed.values()), default=now) - now
                waiting = bool(self._collapsed)
                if not waiting:
                    self._teller = None
            self._tell_each(due)
            if waiting:
                self._wake.wait(wait_s)
                self._wake.clear()


_floods: weakref.WeakSet[Flood] = weakref.WeakSet()


def _forget_after_fork() -> None:
    for flood in _floods:
        flood._reset()  # noqa: SLF001  (a forked child has the parent's counts, and none of its threads)


os.register_at_fork(after_in_child=_forget_after_fork)
