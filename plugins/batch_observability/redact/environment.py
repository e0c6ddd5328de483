"""
What environment variables with names of secrets hold.
"""

from __future__ import annotations

import json
import os
import time

from batch_observability.redact.keys import looks_secret

_MIN_LITERAL = 8
# The environment is looked at again after so many seconds; what is added to it is seen at once.
_ENVIRONMENT_S = 1.0


class _Environment:
    """
    What environment variables that look like secrets hold, or have held since this process began.

    Attributes:
        literals: the values, as they may stand in a text, the longest first: one may hold another.
        size: number of variables when it was read,
        until: and when it is to be read again, by the monotonic clock.
    """

    def __init__(self) -> None:
        self.literals: tuple[str, ...] = ()
        self._values: set[str] = set()
        self.size = -1
        self.until = 0.0

    def read(self) -> None:
        self.size, self.until = len(os.environ), time.monotonic() + _ENVIRONMENT_S
        # Another thread may take a variable away meanwhile.
        found = {os.environ.get(name, "") for name in list(os.environ) if looks_secret(name)}
        new = {value for value in found if len(value) >= _MIN_LITERAL and not _is_file(value)} - self._values
        if new:
            self._values |= new
            self.literals = tuple(sorted({*self.literals, *_written(new)}, key=len, reverse=True))


def _written(values: set[str]) -> set[str]:
    """Return values as they stand in texts, in URLs, and in JSON within JSON."""
    from urllib.parse import quote

    written = values | {quote(value, safe="") for value in values}
    for _level in range(3):
        written |= {json.dumps(value, ensure_ascii=plain)[1:-1] for value in written for plain in (True, False)}
    return written


def literals() -> tuple[str, ...]:
    """Return what secret variables hold, or have held, as it may stand in a text; the longest first."""
    known = _environment
    # Each line that is logged asks.
    if len(os.environ) != known.size or time.monotonic() >= known.until:
        known.read()
    return known.literals


def _is_file(value: str) -> bool:
    # PWD, GOOGLE_APPLICATION_CREDENTIALS: where something is, which messages about it must be able to say.
    return value.startswith("/") and os.path.exists(value)  # noqa: PTH110 - a Path may not be too long a name


def forget_environment() -> None:
    """Forget what the environment has held, and read it again when it is next needed."""
    global _environment  # noqa: PLW0603  (a process has one)
    _environment = _Environment()


_environment = _Environment()
