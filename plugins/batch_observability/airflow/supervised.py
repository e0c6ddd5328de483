"""
Records in a form that Airflow's supervisor can take: with the run's fields, masked, cut to size, and never too much.

The supervisor passes the fields of a line on as arguments of functions, and ends if there are two of a name; it ends at
a time that is none, and drops lines of levels that it does not know (execution_time/supervisor.py:2411, Airflow 3.3.2).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

from structlog.processors import JSONRenderer

from batch_observability import schema
from batch_observability.config import Settings
from batch_observability.logs import children
from batch_observability.logs.correlation import run_fields
from batch_observability.logs.jsonable import plain_fields, shortened
from batch_observability.logs.masking import Masking
from batch_observability.logs.record import LEVEL_OF_METHOD, LEVELS, beside, fields_of, level_name, message
from batch_observability.logs.shipping import ship
from batch_observability.run import current_run

EventDict = MutableMapping[str, Any]

_RENAMED = "field."
# Of functions that a field passes through, and what structlog makes something else of.
TAKEN = frozenset({"target", "msg", "self", "method_name", "positional_args", "stack_info", "logger_name"})
_TAKEN = TAKEN | {"exc_info"}
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)?")
# What a line keeps whatever its size.
_KEPT = (schema.LOG_TIMESTAMP, schema.LOG_LEVEL, schema.LOG_LOGGER)
# Characters of a text and values of a list, tried one after the other until a line is short enough.
_SHORTER = ((2, 1000), (8, 300), (32, 100), (128, 40), (1024, 20))
# What the supervisor adds to a line, or writes in a longer way.
_ADDED_BYTES = 100


def fill_in(_logger: Any, _method: str, event_dict: EventDict) -> EventDict:
    """Put the arguments of a stdlib record into its message, also those that do not fit; a structlog processor."""
    if args := event_dict.get("positional_args"):
        event_dict["event"] = message(event_dict["event"], args if isinstance(args, tuple) else (args,))
        event_dict["positional_args"] = ()
    return event_dict


def add_what_stdlib_knows(_logger: Any, _method: str, event_dict: EventDict) -> EventDict:
    """Add the fields of `extra={...}`, and a level that Airflow knows; a structlog processor, late in its chain."""
    record = event_dict["_record"]
    if event_dict.get(schema.LOG_LEVEL) not in LEVELS:
        event_dict[schema.LOG_LEVEL] = level_name(record.levelno)
    if extra := fields_of(record):
        # Airflow's names are taken: by what it has added, and by what stays in the record.
        event_dict.update(beside(extra, event_dict))
    return event_dict


def add_run(_logger: Any, _method: str, event_dict: EventDict) -> EventDict:
    """Add the fields of the run and its innermost span; a structlog processor. A user's field makes room for them."""
    fields = run_fields()
    if fields.keys().isdisjoint(event_dict):
        event_dict.update(fields)
        return event_dict
    return {**beside(event_dict, fields), **fields}


class SupervisedRenderer(JSONRenderer):  # type: ignore[misc]
    """
    Stands in for the renderer of a chain, whose lines it looks through.

    Args:
        renderer: makes a line, text or bytes, of a record.
        masking: of what is secret.
        settings: how long a line may be, and whether it is shipped.
    """

    def __init__(self, renderer: Callable[..., str | bytes], masking: Masking, settings: Settings) -> None:
        super().__init__()
        self._renderer = renderer
        self._masking = masking
        self._max_bytes = settings.log_max_bytes - _ADDED_BYTES
        self._ships = settings.ship_logs

    def __call__(self, logger: Any, name: str, event_dict: EventDict) -> str | bytes:
        """Make the line. Never raises."""
        event_dict = _as_supervisor_takes_it(event_dict)
        try:
            rendered = self._renderer(logger, name, dict(event_dict))
            line = rendered if isinstance(rendered, str) else rendered.decode()
            fine = _size(rendered) <= self._most() and not self._masking.suspects(line)
        except Exception:
            # A field that holds itself, or cannot be printed.
            fine = False
        if not fine:
            rendered = self._safely(logger, name, event_dict)
        if self._ships and current_run().active:
            ship(json.loads(rendered))
        return rendered

    def _most(self) -> int:
        # Longer lines of several processes would come in pieces, one in between the other.
        return min(self._max_bytes, children.WHOLE_LINE_BYTES) if children.share_output() else self._max_bytes

    def _safely(self, logger: Any, name: str, event_dict: EventDict) -> str | bytes:
        try:
            record = self._masking.event(plain_fields(dict(event_dict)))
            # A lone surrogate (a file name that is not UTF-8) becomes "?": no receiver takes it.
            record = json.loads(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
            return self._cut_to_size(logger, name, record)
        except Exception as error:
            # Nothing of the event: it may be what could not be masked.
            said = f"a log line could not be made: {type(error).__name__}"
            ours = {schema.LOG_TIMESTAMP: _now(), schema.LOG_LEVEL: "error", schema.LOG_EVENT: said}
            return self._renderer(logger, name, {**ours, **run_fields()})

    def _cut_to_size(self, logger: Any, name: str, record: dict[str, Any]) -> str | bytes:
        most = self._most()
        rendered = self._renderer(logger, name, dict(record))
        kept = {key: record[key] for key in _KEPT if key in record}
        for part, values in _SHORTER:
            if _size(rendered) <= most:
                break
            # Fields come in the order in which they were given, and the run's last.
            shorter = shortened(record, max(40, most // part), values)
            rendered = self._renderer(logger, name, {**shorter, **kept, **run_fields()})
        return rendered


def _as_supervisor_takes_it(event_dict: EventDict) -> EventDict:
    if not _TAKEN.isdisjoint(event_dict):
        if event_dict.get("positional_args") == ():
            del event_dict["positional_args"]
        event_dict = beside(event_dict, _TAKEN)
    if event_dict.get(schema.LOG_LEVEL) not in LEVELS:
        event_dict[schema.LOG_LEVEL] = LEVEL_OF_METHOD.get(str(event_dict.get(schema.LOG_LEVEL)), "info")
    time = event_dict.get(schema.LOG_TIMESTAMP)
    if not (isinstance(time, str) and _RFC_3339.fullmatch(time)) and not isinstance(time, datetime):
        if time is not None:
            event_dict[f"{_RENAMED}{schema.LOG_TIMESTAMP}"] = time
        event_dict[schema.LOG_TIMESTAMP] = _now()
    if isinstance(event_dict.get("exception"), str | int | float | bool):
        # Airflow's page expects its own form of a traceback there.
        event_dict[f"{_RENAMED}exception"] = event_dict.pop("exception")
    event_dict.setdefault(schema.LOG_EVENT, "")
    return event_dict


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _size(rendered: str | bytes) -> int:
    return len(rendered if isinstance(rendered, bytes) else rendered.encode())
