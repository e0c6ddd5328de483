"""
What takes long, or imports much, is done in a child of the observer: what it imports is gone with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from batch_observability.sidecar.intake import Intake
from batch_observability.sidecar.journal import Journal


class Apart:
    """
    Does something in a child, of which nobody waits for the end.

    Args:
        journal: of the run; the lock on it is to go with the observer.
        intake: of the observer, whose descriptor is to go with it too.
        forks: False in a thread of the observed process: then it is done at once.
    """

    def __init__(self, journal: Journal, intake: Intake, *, forks: bool) -> None:
        self._journal = journal
        self._intake = intake
        self.forks = forks

    def __call__(self, do: Callable[[], object]) -> None:
        """Do it; what goes wrong is nobody's."""
        if not self.forks:
            do()
        elif not os.fork():
            self._journal.release()
            self._intake.close()
            with suppress(Exception):
                do()
            os._exit(0)
