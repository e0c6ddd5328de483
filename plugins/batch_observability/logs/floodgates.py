"""
Where floods of lines are held back: a processor in a structlog chain, a filter on a stdlib handler.

Two, because a chain within `ProcessorFormatter`, which stdlib records go through, cannot drop a line.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Hashable, MutableMapping
from datetime import UTC, datetime
from typing import Any

from structlog import DropEvent

from batch_observability import schema
from batch_observability.logs.flood import Flood, Verdict

# What differs between lines that a reader calls identical: when they were written, and in which run and stage.
_OF_THE_MOMENT = frozenset(schema.LOG_FIELDS) - {
    schema.LOG_LEVEL, schema.LOG_LOGGER, schema.LOG_EVENT,
    schema.LOG_ERROR_KIND, schema.LOG_ERROR_MESSAGE, schema.LOG_ERROR_FINGERPRINT,
}  # fmt: skip
_LEVELS = {"warn": logging.WARNING, "exception": logging.ERROR, **{
    name.lower(): number for name, number in logging.getLevelNamesMapping().items()
}}  # fmt: skip


class FloodProcessor:
    """
    A structlog processor that stands before the renderer and drops lines of a flood.

    Args:
        burst: identical lines that pass in a minute; 0: all.
        render: the rest of the chain: makes of an event what the wrapped logger's method takes.
        settings: of `Flood`.
    """

    def __init__(self, burst: int, render: Callable[[Any, str, dict[str, Any]], Any], **settings: Any) -> None:
        self._render = render
        self.flood = Flood(burst, self._again, **settings)

    def __call__(self, logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return the event, or raise DropEvent."""
        level = _LEVELS.get(str(event_dict.get(schema.LOG_LEVEL, method)), logging.ERROR)
        if level >= logging.ERROR:
            return event_dict
        key = _event_key(method, event_dict)
        verdict = self.flood.weigh(key, lambda: (logger, method, dict(event_dict)), level)
        if verdict is Verdict.DROP:
            raise DropEvent
        if verdict is Verdict.COLLAPSE:
            event_dict[schema.LOG_COLLAPSED] = True
        return event_dict

    def _again(self, line: tuple[Any, str, dict[str, Any]], repeated: int) -> None:
        logger, method, event_dict = line
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        rendered = self._render(
            logger, method, {**event_dict, schema.LOG_TIMESTAMP: now, schema.LOG_REPEATED: repeated}
        )
        getattr(logger, method)(rendered)


class FloodFilter(logging.Filter):
    """
    A filter on a handler that drops records of a flood.

    Args:
        handler: that it is on, and that gets the records that tell how many were dropped.
        burst: identical records that pass in a minute; 0: all.
        settings: of `Flood`.
    """

    def __init__(self, handler: logging.Handler, burst: int, **settings: Any) -> None:
        super().__init__()
        self._handler = handler
        self.flood = Flood(burst, self._again, **settings)

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is to be written."""
        if record.levelno >= logging.ERROR or schema.LOG_REPEATED in record.__dict__:
            return True
        verdict = self.flood.weigh(_record_key(record), lambda: copy.copy(record), record.levelno)
        if verdict is Verdict.COLLAPSE:
            setattr(record, schema.LOG_COLLAPSED, True)
        return verdict is not Verdict.DROP

    def _again(self, record: logging.LogRecord, repeated: int) -> None:
        again = copy.copy(record)
        again.created = time.time()
        setattr(again, schema.LOG_REPEATED, repeated)
        self._handler.handle(again)


def _event_key(method: str, event_dict: MutableMapping[str, Any]) -> Hashable | None:
    try:
        said = [(name, value) for name, value in event_dict.items() if name not in _OF_THE_MOMENT]
        return method, repr(said)
    except Exception:
        return None


_STANDARD = frozenset(logging.makeLogRecord({}).__dict__)


def _record_key(record: logging.LogRecord) -> Hashable | None:
    try:
        extra = [(name, value) for name, value in record.__dict__.items() if name not in _STANDARD]
        error = repr(record.exc_info[1]) if record.exc_info else ""
        return record.name, record.levelno, record.pathname, record.lineno, record.getMessage(), error, repr(extra)
    except Exception:
        return None
