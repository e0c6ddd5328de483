"""
Log lines for a person at a terminal: time since the run began, stage, level and message in columns, then the fields.

What is the same in all lines of a run is left out: the ids are in the lines that machines read.
"""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import Any

from structlog.dev import BLUE, BRIGHT, CYAN, DIM, GREEN, MAGENTA, RED, RESET_ALL, YELLOW

from batch_observability import schema
from batch_observability.run import current_run

_LEVEL_COLOURS = {"debug": DIM, "info": GREEN, "warning": YELLOW, "error": RED, "critical": RED + BRIGHT}
_STAGE_WIDTH, _LEVEL_WIDTH, _EVENT_WIDTH = 12, 8, 30
_LEFT_OUT = frozenset(schema.LOG_FIELDS) - {schema.LOG_REPEATED, schema.LOG_COLLAPSED}
# A message must not move the cursor.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PLAIN_WORD = re.compile(r"[^\s\"'=\x00-\x1f\x7f-\x9f]+")


class Console:
    """
    Makes lines for a terminal of records.

    Args:
        colours: whether the terminal shows them.
    """

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, record: dict[str, Any]) -> str:
        """Return a record as a line, and its traceback below it."""
        level = record[schema.LOG_LEVEL]
        # What follows in lines of its own must not look like one of ours.
        event = _safe(record[schema.LOG_EVENT]).replace("\n", "\n  ")
        fields = {name: value for name, value in record.items() if name not in _LEFT_OUT}
        columns = [
            self._paint(DIM, _elapsed(record[schema.LOG_TIMESTAMP])),
            self._paint(BLUE, record.get(schema.LOG_STAGE, "")[:_STAGE_WIDTH].ljust(_STAGE_WIDTH)),
            self._paint(_LEVEL_COLOURS[level], level.ljust(_LEVEL_WIDTH)),
            self._paint(BRIGHT, event.ljust(_EVENT_WIDTH) if fields else event),
            *(f"{self._paint(CYAN, _shown(name))}={self._paint(MAGENTA, _shown(v))}" for name, v in fields.items()),
        ]
        return " ".join(columns).rstrip() + self._below(record)

    def _below(self, record: dict[str, Any]) -> str:
        if schema.LOG_ERROR_KIND not in record:
            return ""
        stack = record.get(schema.LOG_ERROR_STACK) or f"{record[schema.LOG_ERROR_KIND]}"
        return "\n" + "\n".join(f"  {line}" for line in _safe(stack).rstrip().splitlines())

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{RESET_ALL}" if self._colours and text.strip() else text


def _elapsed(timestamp: str) -> str:
    """Return the time since the run began, or the time of day if there is no run; nine characters."""
    context = current_run().context
    then = datetime.fromisoformat(timestamp)
    if context is None:
        return then.astimezone().strftime("%H:%M:%S").rjust(9)
    seconds = max(0.0, then.timestamp() - context.start_ns / 1e9)
    if seconds < 60:
        return f"{seconds:8.3f}s"
    return time.strftime("%H:%M:%S", time.gmtime(seconds)).rjust(9) if seconds < 86_400 else f"{seconds / 3600:8.1f}h"


def _shown(value: object) -> str:
    if isinstance(value, str) and _PLAIN_WORD.fullmatch(value):
        return value
    return _safe(json.dumps(value, ensure_ascii=False))


def _safe(text: str) -> str:
    return _CONTROL.sub(lambda control: ascii(control[0])[1:-1], text)
