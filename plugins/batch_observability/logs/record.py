"""
The parts of a log record, whoever made it: level, error, and the user's fields beside ours.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from batch_observability import failure, schema
from batch_observability.logs.jsonable import bounded, text
from batch_observability.redact import redact_text

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
# What structlog's methods and levels of others are called, by ours.
LEVEL_OF_METHOD = {
    **{name: name for name in LEVELS},
    "msg": "info",
    "warn": "warning",
    "exception": "error",
    "err": "error",
    "failure": "error",
    "fatal": "critical",
}
# What the last processor of a chain returns if the line has been written: arguments for a logger that does nothing.
WRITTEN: tuple[tuple[()], dict[str, Any]] = ((), {})
_EXTRA, _RENAMED = "extra", "field."
_OF_STDLIB = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def level_name(number: float) -> str:
    """Return our name of a level of stdlib logging; one that somebody invented is what it is at least."""
    return next((name for name in reversed(LEVELS) if number >= LEVELS[name]), "debug")


def message(event: object, args: tuple[Any, ...]) -> str:
    """Return a message with its arguments in it, as stdlib logging does; beside it if they do not fit. Never raises."""
    said = event if type(event) is str else text(event)
    if not args:
        return said
    with suppress(Exception):
        values = tuple(bounded(value) for value in args)
        with suppress(Exception):  # an argument that does not fit, or cannot be printed
            return said % values
        if len(values) == 1 and isinstance(values[0], Mapping) and values[0]:
            return said % values[0]
    return " ".join([said, *map(text, args)])


def error_fields(exc_info: object, redact: Callable[[str], str] = redact_text) -> dict[str, Any]:
    """Return the fields of an error, given as `exc_info` is; empty if there is none. Never raises."""
    try:
        error = _error(exc_info)
        if error is None:
            return {}
        told = failure.describe(error, redact)
    except Exception:
        return {}
    fields: dict[str, Any] = {
        schema.LOG_ERROR_KIND: told.kind,
        schema.LOG_ERROR_MESSAGE: told.message,
        schema.LOG_ERROR_STACK: told.stack,
        schema.LOG_ERROR_FINGERPRINT: told.fingerprint,
        schema.LOG_ERROR_CAUSES: list(told.causes),
        schema.LOG_ERROR_NOTES: list(told.notes),
    }
    return {name: value for name, value in fields.items() if value not in ([], "")}


def _error(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1] if len(exc_info) > 1 else None
    if isinstance(exc_info, BaseException):
        return exc_info
    return sys.exc_info()[1] if exc_info else None


def add_error_fields(_logger: Any, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the fields of the error that a record has; a structlog processor that leaves the error where it is."""
    if event_dict.get("exc_info"):
        event_dict.update(error_fields(event_dict["exc_info"]))
    return event_dict


def beside(fields: Mapping[str, Any], ours: Mapping[str, Any] | Collection[str]) -> dict[str, Any]:
    """
    Return the user's fields without those that have a name of ours: they become `field.<name>`.

    What says the same as ours is left out, and so is what a tracer's own log injection has added.
    """
    made: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in ours:
            made[name] = value
        elif not name.startswith("dd.") and not (isinstance(ours, Mapping) and _equal(ours[name], value)):
            renamed = f"{_RENAMED}{name}"
            while renamed in fields:
                renamed = f"{_RENAMED}{renamed}"
            made[renamed] = value
    return made


def _equal(ours: object, theirs: object) -> bool:
    return type(ours) is type(theirs) and bool(ours == theirs)


def without_extra(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields with those of `extra={...}` among them: a call that was written for stdlib logging means that."""
    extra = fields.pop(_EXTRA)
    try:
        if extra is None:
            return fields
        if not isinstance(extra, Mapping):
            return {**fields, _EXTRA: extra}
        return {**{text(name): value for name, value in list(extra.items())}, **fields}
    except Exception:
        return {**fields, _EXTRA: extra}


def fields_of(record: logging.LogRecord, names: Iterable[str] = ()) -> dict[str, Any]:
    """Return what was given as `extra={...}` to a record of stdlib logging; `names` are of no interest."""
    known = _OF_STDLIB.union(names)
    return {text(name): value for name, value in list(record.__dict__.items()) if name not in known}
