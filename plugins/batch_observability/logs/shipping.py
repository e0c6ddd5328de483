"""
Records of the loggers on their way to the sidecar, where the setting `ship_logs` is on.

What goes is what the line says, plain and masked; the fields that every line of the run has are left to the sidecar,
which knows them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from batch_observability import schema
from batch_observability.run import Run, current_run

# Names that structlog, the standard library and others have for what the five levels of a record say.
_LEVELS = {
    **{level: level for level in ("debug", "info", "warning", "error", "critical")},
    "notset": "debug",
    "trace": "debug",
    "warn": "warning",
    "exception": "error",
    "fatal": "critical",
}
_OWN = (
    *(schema.LOG_TIMESTAMP, schema.LOG_LEVEL, schema.LOG_LOGGER, schema.LOG_EVENT),
    *(schema.LOG_TRACE_ID, schema.LOG_SPAN_ID),
)


def ship(record: Mapping[str, Any], run: Run | None = None) -> None:
    """
    Hand a record to the sidecar of the run, without waiting; one that there is no room for is counted. Never raises.

    Args:
        record: fields of a line, made plain and masked.
        run: whose line it is; default: the run that this process is in.
    """
    with suppress(Exception):
        _ship(record, run or current_run())


def _ship(record: Mapping[str, Any], run: Run) -> None:
    if not run.active or run.context is None:
        return
    common = run.shared_log_fields()
    attributes = {
        name: value
        for name, value in record.items()
        if name not in _OWN and (common.get(name) != value or name == schema.LOG_STAGE)
    }
    run.tell_log(
        _time_ns(record.get(schema.LOG_TIMESTAMP)),
        _LEVELS.get(str(record.get(schema.LOG_LEVEL, "info")).lower(), "info"),
        str(record.get(schema.LOG_LOGGER) or ""),
        str(record.get(schema.LOG_EVENT, "")),
        str(record.get(schema.LOG_TRACE_ID) or common[schema.LOG_TRACE_ID]),
        str(record.get(schema.LOG_SPAN_ID) or common[schema.LOG_SPAN_ID]),
        attributes,
    )


def _time_ns(timestamp: Any) -> int:
    """Return the moment that a line says, as Unix time in nanoseconds; now, if it says none that can be read."""
    with suppress(TypeError, ValueError):
        moment = datetime.fromisoformat(timestamp)
        if moment.tzinfo is not None:
            return round(moment.timestamp() * 1_000_000) * 1000
    return time.time_ns()
