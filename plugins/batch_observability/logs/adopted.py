"""
What a child of multiprocessing that was started afresh does with what its carrier has brought: it goes on with the run
of its parent, in the stage that was open there, and logs as its parent does.
"""

from __future__ import annotations

import functools
import io
import logging
import os
import pickle
import re
import socket
import time
import warnings
import weakref
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any

from structlog.stdlib import ProcessorFormatter

from batch_observability import schema
from batch_observability.channel import Channel
from batch_observability.logs import configure
from batch_observability.logs.children import CARRIER, WHOLE_LINE_BYTES, Carrier, LogChannel, carry
from batch_observability.logs.lines import Lines
from batch_observability.logs.logger import get_logger
from batch_observability.logs.printed import record_printed_lines
from batch_observability.logs.record import beside
from batch_observability.redact import MASK, redact_text
from batch_observability.run import Run, Stage, _stages, set_current_run


class _StageOfParent(Stage):
    """The stage that was open when this process was started; it is the parent's to end."""

    def __init__(self, run: Run, name: str, span_id: int) -> None:
        super().__init__(run, name)
        self.span_id = span_id
        self._began = time.monotonic()
        self._fields = {**run.log_fields(), schema.LOG_SPAN_ID: str(span_id), schema.LOG_STAGE: name}


class _RunOfParent(Run):
    """The parent's run in this process."""

    def go_on_within(self, name: str, span_id: int) -> None:
        """Let all that happens here, in all threads, be in a stage of the parent."""
        stage = _StageOfParent(self, name, span_id)
        self._main_stages = (stage,)
        _stages.set((stage,))


def adopt(packed: bytes, descriptors: dict[str, Any]) -> Carrier:
    """Go on with the run of the process that started this one; called while its process object is unpickled."""
    numbers = {name: descriptor.detach() for name, descriptor in descriptors.items()}
    for number in numbers.values():
        # For this process, not for all that it may start.
        os.set_inheritable(number, False)
    told = pickle.loads(packed)  # noqa: S301  (from the parent, as the process object)
    channel = Channel(socket.socket(fileno=numbers["frames"])) if "frames" in numbers else None
    masked = _masking(told["secrets"])
    if told["context"] is not None:
        run = _RunOfParent(told["context"], channel, lambda text: redact_text(masked(text)))
        if told["stage"]:
            run.go_on_within(*told["stage"])
        set_current_run(run)
    log_channel: LogChannel | None = told["log_channel"]
    if log_channel is not None:
        log_channel = _ours(log_channel, numbers["log"]) if "log" in numbers else None
    carry(log_channel, lambda: str(told["secrets"]))
    if log_channel is not None:
        CARRIER.log = functools.partial(_log_to, log_channel, masked)
    elif told["log"] is not None:
        CARRIER.log = functools.partial(_log_as, told["log"])
    CARRIER.pid = os.getpid()
    CARRIER.begin()
    _once_more_when_user_code_is_imported()
    return CARRIER


def _once_more_when_user_code_is_imported() -> None:
    """
    Begin again before user code runs: to import it, which is still to come, may set up logging, as Airflow does.

    What stands for the process until then is dropped at that moment (multiprocessing/process.py, `_bootstrap`).
    """
    from multiprocessing import process

    # Kept in the module, or nobody is called.
    global _until_then  # noqa: PLW0603
    _until_then = weakref.ref(process.current_process(), lambda _: CARRIER.begin())


_until_then: Any = None


def _masking(secrets: str) -> Callable[[str], str]:
    if not secrets:
        return str
    return functools.partial(re.compile(secrets).sub, MASK)


def _ours(log_channel: LogChannel, descriptor: int) -> LogChannel:
    settings = log_channel.settings
    at_most = min(settings.log_max_bytes, WHOLE_LINE_BYTES)
    return log_channel._replace(descriptor=descriptor, settings=replace(settings, log_max_bytes=at_most))


def _log_as(parent: configure.Configured) -> None:
    configure.configure(parent.settings, parent.level, format=parent.format, file=parent.file)


class _LinesOfTask(Lines):
    """Lines that whoever writes the task's log can take."""

    def __init__(self, log_channel: LogChannel, write: Callable[[str], None], masked: Callable[[str], str]) -> None:
        super().__init__(log_channel.settings, write, known=masked)
        self._taken = log_channel.taken

    def write(self, name: str, level: str, event_dict: MutableMapping[str, Any], time_ns: int | None = None) -> None:
        """Write an event."""
        if not self._taken.isdisjoint(event_dict):
            event_dict = beside(event_dict, self._taken)
        super().write(name, level, event_dict, time_ns)


def _log_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_where: Any) -> None:
    """In the form in which the task's own warnings are logged by Airflow."""
    get_logger("py.warnings").warning(str(message), category=category.__name__, filename=filename, lineno=lineno)


def _log_to(log_channel: LogChannel, masked: Callable[[str], str]) -> None:
    for name, level in log_channel.levels.items():
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(level)
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, ProcessorFormatter):
            # Airflow's, which user code has imported: each line would come twice.
            root.removeHandler(handler)
    stream = io.FileIO(log_channel.descriptor, "w", closefd=False)
    configure.configure(log_channel.settings, log_channel.level, stream=stream, known=masked)
    write = configure._lines._write  # type: ignore[union-attr]  # noqa: SLF001
    configure._lines = _LinesOfTask(log_channel, write, masked)  # noqa: SLF001
    record_printed_lines(lambda name: get_logger(name).bind())
    warnings.showwarning = _log_warning  # type: ignore[assignment]
