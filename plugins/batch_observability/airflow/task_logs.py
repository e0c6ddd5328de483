"""
Log lines of a task that find their trace, beside Airflow's own logging, whose configuration stays as it is.

Processors are put into Airflow's structlog chain and into that of stdlib records; they see the records of all threads.
The lines go to Airflow's supervisor, which writes them to the task's log file.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import structlog
from structlog.processors import CallsiteParameterAdder, ExceptionRenderer, JSONRenderer
from structlog.stdlib import ProcessorFormatter

from batch_observability.airflow import compat
from batch_observability.airflow.supervised import TAKEN, SupervisedRenderer, add_run, add_what_stdlib_knows, fill_in
from batch_observability.config import Settings
from batch_observability.guard import guarded
from batch_observability.logs import children
from batch_observability.logs.correlation import follow
from batch_observability.logs.floodgates import FloodFilter, FloodProcessor
from batch_observability.logs.masking import Masking
from batch_observability.logs.printed import record_printed_lines
from batch_observability.logs.record import add_error_fields
from batch_observability.run import Run

# Who holds it, and may fork in a signal handler, is waited for no longer.
_LOCKED_AT_MOST_S = 1.0

_gates: list[FloodProcessor | FloodFilter] = []


@guarded(None)
def observe_logs(run: Run, settings: Settings) -> None:
    """From now on, until the process ends, log lines of this process and of its children carry the fields of a run."""
    configuration = structlog.get_config()
    processors = configuration["processors"]
    if not isinstance(processors[-1], JSONRenderer):
        # A terminal (dag.test, airflow tasks test): fifteen fields a line would bury what it says.
        children.carry(secrets=compat.known_secrets)
        return
    follow(run)
    masking = Masking(settings.log_redact, compat.mask_known)
    if not isinstance(processors[-1], SupervisedRenderer):
        _extend_chain(processors, settings, masking)
    stream = getattr(configuration["logger_factory"], "io", None)
    lock = _write_lock(stream)
    for handler in logging.getLogger().handlers:
        formatter = handler.formatter
        if isinstance(formatter, ProcessorFormatter) and not isinstance(formatter.processors[-1], SupervisedRenderer):
            _extend_handler(handler, formatter, settings, masking)
            if lock is not None:
                _write_under(lock, handler)
    record_printed_lines(lambda name: structlog.get_logger(name).bind())
    children.carry(_log_channel(stream, settings), compat.known_secrets)


@guarded(None)
def end_of_run() -> None:
    """Tell what flood control has kept back; children that are started from now on are in no run."""
    for gate in _gates:
        gate.flood.finish()
    children.carry_no_more()


def _extend_chain(processors: list[Any], settings: Settings, masking: Masking) -> None:
    """In place: loggers that were used before keep this very list."""
    render = SupervisedRenderer(processors[-1], masking, settings)
    gate = FloodProcessor(settings.log_burst, render)
    _gates.append(gate)
    processors[-1:] = [add_run, gate, render]
    processors.insert(_before_errors_are_rendered(processors), add_error_fields)
    for processor in processors:
        if isinstance(processor, CallsiteParameterAdder):
            # Who calls our loggers, and who prints, is who logs.
            processor._additional_ignores.append("batch_observability.logs")  # noqa: SLF001


def _extend_handler(
    handler: logging.Handler, formatter: ProcessorFormatter, settings: Settings, masking: Masking
) -> None:
    chain = list(formatter.foreign_pre_chain or ())
    chain.insert(_before_errors_are_rendered(chain), add_error_fields)
    formatter.foreign_pre_chain = [fill_in, *chain, add_what_stdlib_knows, add_run]
    *others, renderer = formatter.processors
    formatter.processors = [*others, SupervisedRenderer(renderer, masking, settings)]
    gate = FloodFilter(handler, settings.log_burst)
    _gates.append(gate)
    handler.addFilter(gate)


def _before_errors_are_rendered(chain: list[Any]) -> int:
    found = (position for position, processor in enumerate(chain) if isinstance(processor, ExceptionRenderer))
    return next(found, 0)


# --- One line at a time -------------------------------------------------------------------------------------------


def _write_lock(stream: Any) -> Any:
    """Return the lock under which structlog writes to a stream; None if it cannot be had."""
    try:
        from structlog._output import _get_lock_for_file

        return _get_lock_for_file(stream) if stream is not None else None
    except (ImportError, TypeError):
        return None


def _write_under(lock: Any, handler: logging.Handler) -> None:
    """
    Let a stdlib handler write under structlog's lock.

    They write to one socket, which takes a long line piece by piece. And a child that is forked while another thread
    writes would wait for that thread, which it does not have.
    """
    if not isinstance(handler, logging.StreamHandler):
        return
    handler.stream = _Locked(handler.stream, lock)
    held = threading.local()

    def before() -> None:
        held.lock = lock.acquire(timeout=_LOCKED_AT_MOST_S)

    def after() -> None:
        if held.lock:
            lock.release()

    def after_in_child() -> None:
        # If that took too long, who has it is a thread of the parent, which this process does not have.
        if lock.locked():
            lock.release()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=after_in_child)


class _Locked:
    """A stream that is written to under a lock; of no use to who holds it already, in a signal handler."""

    def __init__(self, stream: Any, lock: Any) -> None:
        self._stream = stream
        self._lock = lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> Any:
        """Write, in any case."""
        held = self._lock.acquire(timeout=_LOCKED_AT_MOST_S)
        try:
            return self._stream.write(text)
        finally:
            if held:
                self._lock.release()


def _log_channel(stream: Any, settings: Settings) -> children.LogChannel | None:
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    levels = {
        name: logger.level
        for name, logger in list(logging.root.manager.loggerDict.items())
        if isinstance(logger, logging.Logger) and logger.level
    }
    return children.LogChannel(descriptor, settings, logging.getLogger().level, levels, TAKEN | {"exception"})
