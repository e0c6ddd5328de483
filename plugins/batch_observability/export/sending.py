"""
What one target takes at once, with its files on disk: they are let go when nobody is at them any more.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from batch_observability.export.signals import Batch
from batch_observability.export.spool_file import Entry


@dataclass
class Sending:
    """
    What one target takes at once, with its files.

    Attributes:
        reason: why it was not taken the last time, "" if it was.
        lost: why it must not be sent again, "" if it may be: nobody knows what arrived, or it will never be taken.
        problem: what is reported of it.
    """

    target: str
    batch: Batch
    entries: list[Entry]
    reason: str = ""
    lost: str = ""
    problem: str = ""
    under_way: bool = False
    given_up: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def let_go(self) -> None:
        """Let others have its files, now or when the attempt that is under way has ended."""
        with self.lock:
            self.given_up = True
            if not self.under_way:
                self.release()

    def attempted(self) -> None:
        """Note that no attempt is under way any more."""
        with self.lock:
            self.under_way = False
            if self.given_up:
                self.release()

    def release(self) -> None:
        """Let others have its files."""
        for entry in self.entries:
            entry.release()
