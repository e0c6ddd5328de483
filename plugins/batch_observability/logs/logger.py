"""
Loggers whose calls never raise, whatever they are given; the rest is structlog's.

Where somebody else has configured structlog (Airflow does) the lines go that way: through the same processors, at the
same level, to the same place.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any, cast

import structlog

from batch_observability import schema
from batch_observability.context import RUN_VARIABLE
from batch_observability.logs.jsonable import text
from batch_observability.logs.record import LEVELS, WRITTEN, level_name, message, without_extra

_DEBUG, _INFO, _WARNING, _ERROR, _CRITICAL = LEVELS.values()


class Logger(structlog.BoundLoggerBase):  # type: ignore[misc]
    """
    A structlog logger with the methods of stdlib logging's.

    Each takes a message, arguments to be put into it by `%`, and fields. All of them may be any object. `exc_info` and
    `stack_info` mean what they mean in `logging`, and so does `extra={...}`. Methods that begin with `a` are for
    asyncio.
    """

    _level = 0

    def debug(self, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at level debug."""
        if self._level <= _DEBUG:
            self._say("debug", event, args, fields)

    def info(self, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at level info."""
        if self._level <= _INFO:
            self._say("info", event, args, fields)

    def warning(self, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at level warning."""
        if self._level <= _WARNING:
            self._say("warning", event, args, fields)

    def error(self, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at level error."""
        if self._level <= _ERROR:
            self._say("error", event, args, fields)

    def critical(self, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at level critical."""
        if self._level <= _CRITICAL:
            self._say("critical", event, args, fields)

    def exception(self, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at level error, with the error that is being handled."""
        self.error(event, *args, **{"exc_info": True, **fields})

    def log(self, level: object, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at a level, given as a number or by its name."""
        number = LEVELS.get(level.lower(), _INFO) if type(level) is str else level
        if type(number) is not int:
            number = _INFO
        if self._level <= number:
            self._say(level_name(number), event, args, fields)

    msg, warn, fatal = info, warning, critical

    async def adebug(self, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at level debug, in a thread."""
        await self._in_thread("debug", event, args, fields)

    async def ainfo(self, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at level info, in a thread."""
        await self._in_thread("info", event, args, fields)

    async def awarning(self, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at level warning, in a thread."""
        await self._in_thread("warning", event, args, fields)

    async def aerror(self, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at level error, in a thread."""
        await self._in_thread("error", event, args, fields)

    async def acritical(self, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at level critical, in a thread."""
        await self._in_thread("critical", event, args, fields)

    async def aexception(self, event: object = "", /, *args: object, **fields: object) -> None:
        """Log at level error, with the error that is being handled, in a thread."""
        await self._in_thread("error", event, args, {"exc_info": True, **fields})

    def is_enabled_for(self, level: int) -> bool:
        """Whether lines of a level are written."""
        return self._level <= level

    def get_effective_level(self) -> int:
        """Return the lowest level that is written."""
        return self._level

    # As stdlib logging calls them.
    isEnabledFor, getEffectiveLevel = is_enabled_for, get_effective_level  # noqa: N815

    async def _in_thread(self, method: str, event: object, args: tuple[object, ...], fields: dict[str, Any]) -> None:
        if self._level <= LEVELS[method]:
            if fields.get("exc_info") is True:
                # The thread handles none.
                fields["exc_info"] = sys.exc_info()[1]
            await asyncio.to_thread(self._say, method, event, args, fields)

    def _say(self, method: str, event: object, args: tuple[object, ...], fields: dict[str, Any]) -> None:
        if args or type(event) is not str:
            event = message(event, args)
        if "extra" in fields:
            fields = without_extra(fields)
        try:
            self._pass_on(method, event, fields)
        except Exception as error:
            # A processor of others could not take a field, or its output is gone.
            with suppress(Exception):
                self._pass_on(method, event, {"not_logged": [text(name) for name in fields], "why": text(error)})

    def _pass_on(self, method: str, event: object, fields: dict[str, Any]) -> None:
        made: Any = {**self._context, **fields, schema.LOG_EVENT: event}
        try:
            for processor in self._processors:
                made = processor(self._logger, method, made)
        except structlog.DropEvent:
            return
        if made is WRITTEN:
            return
        # As structlog's own loggers call what they wrap.
        if isinstance(made, str | bytes | bytearray):
            made = (made,), {}
        args, kw = made if isinstance(made, tuple) else ((), made)
        getattr(self._logger, method)(*args, **kw)


def set_level(level: int) -> None:
    """Set the lowest level of all loggers that write through `configure_logging`, also of those in use."""
    Logger._level = level  # noqa: SLF001


def get_logger(name: str = "", **fields: object) -> Logger:
    """
    Return a logger, for a module under its `__name__`. Nothing is configured by that.

    Args:
        name: of the logger.
        fields: that all of its lines carry.
    """
    name = name if type(name) is str else text(name)
    named = (name,) if name else ()
    made = structlog.wrap_logger(None, wrapper_class=partial(_as_configured, name), logger_factory_args=named, **fields)
    return cast("Logger", made)


def _as_configured(name: str, logger: Any, processors: Sequence[Any], context: Mapping[str, Any]) -> Any:
    """Make a logger when it is first used: then it is known how structlog is configured."""
    if RUN_VARIABLE in os.environ and not structlog.is_configured():
        from batch_observability.logs.configure import logger_of_job

        return logger_of_job(name, context)
    theirs = structlog.get_config()["wrapper_class"](logger, processors=processors, context=context)
    kind: Any = type(theirs)
    if issubclass(kind, Logger):
        return theirs
    level = theirs.get_effective_level() if hasattr(theirs, "get_effective_level") else 0
    return _kind_of(kind, level)(logger, processors=processors, context=context)


@cache
def _kind_of(theirs: Any, level: int) -> type:
    return type("Logger", (Logger, theirs), {"_level": level, "__doc__": Logger.__doc__})
