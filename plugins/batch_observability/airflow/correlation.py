"""
Log lines of a task that find their trace: every structlog and stdlib record, and what is printed.

A processor before the renderer sees the records of all threads; contextvars would miss those of user threads. Printed
lines are made into records here, because Airflow's supervisor, which else makes them, knows of no run.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections.abc import Iterable, MutableMapping
from typing import Any

from batch_observability.run import Run

_run: Run | None = None


def correlate_logs(run: Run) -> None:
    """From now on, until the process ends, log lines of this process carry the fields of a run."""
    global _run  # noqa: PLW0603  (read by the processor in all threads)
    import structlog

    processors = structlog.get_config()["processors"]
    if not isinstance(processors[-1], structlog.processors.JSONRenderer):
        # A terminal (dag.test, airflow tasks test): fifteen fields a line would bury what it says.
        return
    _run = run
    # In place: loggers that were used before keep this very list.
    _insert(processors, len(processors) - 1)
    for handler in logging.getLogger().handlers:
        chain = getattr(handler.formatter, "foreign_pre_chain", None)
        if isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter) and isinstance(chain, list):
            _insert(chain, len(chain))
    for name, level in (("stdout", logging.INFO), ("stderr", logging.ERROR)):
        stream = getattr(sys, name)
        if not isinstance(stream, _PrintedLines):
            printed = _PrintedLines(stream, structlog.get_logger(f"task.{name}"), level)
            setattr(sys, name, printed)
            atexit.register(printed.finish)


def _insert(processors: list[Any], position: int) -> None:
    if add_run_fields not in processors:
        processors.insert(position, add_run_fields)


def add_run_fields(_logger: Any, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the fields of the run and its stage to a record; a structlog processor."""
    if _run is not None:
        for name, value in _run.log_fields().items():
            event_dict.setdefault(name, value)
    return event_dict


class _PrintedLines:
    """Stands in for stdout or stderr of a task process: whole lines become records, all else is the stream's."""

    def __init__(self, stream: Any, logger: Any, level: int) -> None:
        self._stream = stream
        self._logger = logger
        self._level = level
        self._lock = threading.Lock()
        self._unfinished: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Make a record of each line that is whole now."""
        with self._lock:
            self._unfinished.append(text)
            lines: list[str] = []
            if "\n" in text:
                *lines, rest = "".join(self._unfinished).split("\n")
                self._unfinished = [rest]
        # Outside of the lock: a handler may print.
        self._log(lines)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def finish(self) -> None:
        """
        Make a record of a last line that nobody ended.

        Not when it is flushed: a progress bar is, many times a second.
        """
        with self._lock:
            rest, self._unfinished = "".join(self._unfinished), []
        self._log([rest])

    def _log(self, lines: list[str]) -> None:
        for line in lines:
            if line.strip():
                self._logger.log(self._level, line.rstrip())
