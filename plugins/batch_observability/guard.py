"""
The guard around every hook and every call from user code: observing never harms the observed.

What goes wrong inside is logged once for each place, with the remedy, and then forgotten; under pytest it is raised,
so that tests see it.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("batch_observability")
_told: set[str] = set()


def guarded(default: R) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function return `default` instead of raising an `Exception`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                report(function.__qualname__, error)
                return default

        return wrapper

    return decorate


def report(place: str, error: Exception) -> None:
    """Log an error of ours once for a place; raise it under pytest."""
    if "PYTEST_VERSION" in os.environ:
        raise error
    if place not in _told:
        _told.add(place)
        log.warning(
            "batch_observability: %s failed, the task is not affected: %s: %s. Run `batchobs doctor`.",
            place,
            type(error).__name__,
            _in_one_line(error),
        )


def _in_one_line(error: Exception) -> str:
    try:
        return " ".join(str(error).split())
    except Exception:
        return "it cannot be printed"
