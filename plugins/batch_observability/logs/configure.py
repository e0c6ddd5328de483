"""
Logging of a whole process: our loggers, structlog, plain `logging` and `warnings`, all in one form to one place.

Loggers live as long as their modules and keep what they were made with. So what they keep is made once, and asks for
the lines of the day.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from structlog.contextvars import get_contextvars, merge_contextvars

from batch_observability import config
from batch_observability.context import RUN_VARIABLE
from batch_observability.logs.console import Console
from batch_observability.logs.jsonable import text
from batch_observability.logs.lines import Lines
from batch_observability.logs.logger import Logger, set_level
from batch_observability.logs.output import Output, open_file
from batch_observability.logs.record import LEVEL_OF_METHOD, LEVELS, WRITTEN, fields_of, level_name, message

log = logging.getLogger("batch_observability")
FORMATS = ("auto", "json", "console")
_LEVEL_NAMES = {**LEVELS, "warn": LEVELS["warning"], "fatal": LEVELS["critical"], "notset": 0}

_lines: Lines | None = None
_file: Any = None
_configured: Configured | None = None


@dataclass(frozen=True)
class Configured:
    """
    How a process logs, for its children; it can be pickled.

    Attributes:
        settings: those of the process.
        level: as a number of `logging`.
        format: json or console.
        file: its path; None for stderr.
    """

    settings: config.Settings
    level: int
    format: str
    file: str | None = None

    def configure(self) -> None:
        """
        Let this process log in the same way.

        Raises:
            OSError: if the file cannot be written.
        """
        configure(self.settings, self.level, format=self.format, file=self.file)


def configured() -> Configured | None:
    """Return how this process logs; None if it was not configured by us, or to a stream, which only it has."""
    return _configured


def configure_logging(
    *,
    level: str | int | None = None,
    format: str = "auto",  # noqa: A002  (what everybody calls it)
    stream: Any = None,
    file: str | os.PathLike[str] | None = None,
) -> None:
    """
    Let this process log: its loggers, plain `logging`, `warnings` and structlog; to stderr, unless told otherwise.

    A second call replaces what the first has set up. Handlers that others have put on the root logger stay. Children of
    multiprocessing log in the same way, if they can: a stream is this process's own. In an Airflow task it does
    nothing: Airflow has configured logging, and the lines go there.

    Args:
        level: lowest level that is written: a name, or a number of `logging`; info if not given.
        format: json, console, or auto: console on a terminal, else JSON lines.
        stream: takes text or bytes.
        file: its path; the file is made for its owner only, and lines are added to its end.

    Raises:
        ValueError: if a value cannot be used.
        OSError: if the file cannot be written.
    """
    number = _level_number(level)
    if format not in FORMATS:
        raise ValueError(f"configure_logging(format={format!r}): write one of {', '.join(FORMATS)}")
    if stream is not None and file is not None:
        raise ValueError("configure_logging(): a stream and a file; give one of them")
    if _is_airflows():
        log.debug("configure_logging() does nothing here: Airflow has configured logging")
        return
    settings = config.load(
        section=lambda key: config.airflow_option(config.SECTION, key),
        on_error=lambda error: log.warning("%s; the default is used", error),
    )
    configure(settings, number, format=format, stream=stream, file=file)
    from batch_observability.logs.children import carry

    carry()


def configure(
    settings: config.Settings,
    level: int = LEVELS["info"],
    *,
    format: str = "json",  # noqa: A002
    stream: Any = None,
    file: str | os.PathLike[str] | None = None,
    known: Callable[[str], str] | None = None,
) -> None:
    """
    As `configure_logging`, for those who know the settings; wherever it is.

    Args:
        settings: those of the process.
        level: as a number of `logging`.
        format: as there.
        stream: as there.
        file: as there.
        known: masks what somebody else knows to be a secret.
    """
    global _lines, _file, _configured  # noqa: PLW0603  (a process logs in one way)
    opened = open_file(Path(file)) if file is not None else None
    output = Output(stream if opened is None else opened, about_lost=_about_lost)
    as_console = format == "console" or (format == "auto" and output.is_terminal())
    show = Console(colours=output.is_terminal() and not os.environ.get("NO_COLOR")) if as_console else None
    finish()
    previous, _file = _file, opened
    _lines = Lines(_shipped_once(settings, output, stream, file), output.write, show=show, known=known)
    path = None if file is None else os.path.realpath(Path(file).expanduser())
    _configured = Configured(settings, level, "console" if as_console else "json", path) if stream is None else None
    set_level(level)
    structlog.configure(
        processors=_chain, wrapper_class=Logger, logger_factory=NamedLogger, cache_logger_on_first_use=True
    )
    _configure_stdlib(level)
    if previous is not None:
        previous.close()


def _shipped_once(settings: config.Settings, output: Output, stream: Any, file: Any) -> config.Settings:
    """Leave it to `batchobs run` to ship what it reads from the output of its job."""
    standard = file is None and any(
        stream is one for one in (None, getattr(sys, "stdout", None), getattr(sys, "stderr", None))
    )
    read_there = standard and RUN_VARIABLE in os.environ
    return replace(settings, ship_logs=False) if read_there and not output.is_terminal() else settings


def logger_of_job(name: str, context: Mapping[str, Any]) -> Logger:
    """
    Return a logger of a job under `batchobs run` that has not configured logging: it writes to stderr.

    Nothing but our own loggers writes differently by that.
    """
    global _lines  # noqa: PLW0603
    if _lines is None:
        settings = config.load(on_error=lambda error: log.warning("%s; the default is used", error))
        output = Output(about_lost=_about_lost)
        show = Console(colours=not os.environ.get("NO_COLOR")) if output.is_terminal() else None
        _lines = Lines(_shipped_once(settings, output, None, None), output.write, show=show)
        set_level(LEVELS["info"])
    return Logger(NamedLogger(name or "root"), processors=_chain, context=context)


def finish() -> None:
    """Write what flood control has kept back: when a run ends, and when logging changes."""
    if _lines is not None:
        _lines.finish()


def _configure_stdlib(level: int) -> None:
    root = logging.getLogger()
    others = [handler for handler in root.handlers if not isinstance(handler, RootHandler)]
    root.handlers = [*others, RootHandler(level)]
    # What handlers of others are used to get they get.
    root.setLevel(min(level, root.level) if others else level)
    logging.captureWarnings(capture=True)


def _level_number(level: str | int | None) -> int:
    if level is None:
        return LEVELS["info"]
    if isinstance(level, str) and level.strip().lower() in _LEVEL_NAMES:
        return _LEVEL_NAMES[level.strip().lower()]
    if isinstance(level, int) and not isinstance(level, bool):
        return level
    raise ValueError(f"configure_logging(level={level!r}): write one of {', '.join(LEVELS)}, or a number of logging")


def _is_airflows() -> bool:
    kind = structlog.get_config()["wrapper_class"]
    return structlog.is_configured() and str(getattr(kind, "__module__", "")).startswith("airflow")


def _about_lost(count: int, why: str) -> str:
    lines: list[str] = []
    Lines(config.Settings(), lines.append).write(log.name, "warning", {
        "event": f"{count} log lines before this one may be lost: writing failed ({why})"
    })  # fmt: skip
    return lines[0]


# --- What structlog's loggers keep ------------------------------------------------------------------------------


class NamedLogger:
    """What a structlog logger wraps: its name. The line has been written when a method of this is called."""

    __slots__ = ("name",)

    def __init__(self, name: object = "root", *_args: object) -> None:
        self.name = text(name)

    def msg(self, *_args: object, **_fields: object) -> None:
        """Do nothing."""

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _write(logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> tuple[Any, ...]:
    if "stack_info" in event_dict:
        event_dict = _add_stack(logger, method, event_dict)
    if _lines is not None:
        _lines.write(getattr(logger, "name", "root"), LEVEL_OF_METHOD.get(method, "info"), event_dict)
    return WRITTEN


_add_stack = structlog.processors.StackInfoRenderer(additional_ignores=["batch_observability.logs"])
_chain: list[Any] = [merge_contextvars, _write]


# --- What stdlib logging keeps ----------------------------------------------------------------------------------


class RootHandler(logging.Handler):
    """Makes lines of the records of plain `logging`, and of warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record. Never raises."""
        with contextlib.suppress(Exception):
            fields = {**get_contextvars(), **fields_of(record), "event": _text_of(record)}
            if record.exc_info:
                fields["exc_info"] = record.exc_info
            if record.stack_info:
                fields["stack"] = record.stack_info
            if _lines is not None:
                _lines.write(record.name, level_name(record.levelno), fields, int(record.created * 1e9))


def _text_of(record: logging.LogRecord) -> str:
    """Return the message of a record, as its own class makes it if that is possible."""
    if type(record) is not logging.LogRecord:
        with contextlib.suppress(Exception):
            return record.getMessage()
    # A filter may have put anything there.
    given = record.args if type(record.args) is tuple else (record.args,)
    args = () if record.args is None or (type(record.args) is dict and not record.args) else given
    said = message(record.msg, args)
    return said.rstrip() if record.name == "py.warnings" else said
