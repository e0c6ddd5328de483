"""
What makes a log line find its trace: the fields of the run that this process is in, and of its innermost span.

A processor that asks the run sees the lines of all threads; contextvars would miss those of user threads.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from batch_observability.run import Run, current_run

_followed: Run | None = None


def follow(run: Run | None) -> None:
    """Let lines that come when no run is open carry a run's fields: those that a task writes once its run has ended."""
    global _followed  # noqa: PLW0603  (read by all threads)
    _followed = run


def run_fields() -> dict[str, Any]:
    """Return the fields of the run at this moment, not to be changed; empty if there is none."""
    return current_run().shared_log_fields() or (_followed.shared_log_fields() if _followed else {})


def add_run_fields(_logger: Any, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the fields of the run to a record; a structlog processor. What the record has already stays."""
    for name, value in run_fields().items():
        event_dict.setdefault(name, value)
    return event_dict
