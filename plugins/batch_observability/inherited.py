"""
The run that a process is a part of because it, or whoever started it, was started under `batchobs run`.

It is found by two variables, when it is first asked for: nothing has to be set up in a job. A job whose observer is
gone, or was never there, keeps the fields of its log lines, and what it tells is told to nobody. Standard library only.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import threading
from contextlib import suppress

from batch_observability.channel import Channel
from batch_observability.context import CHANNEL_VARIABLE, RUN_VARIABLE, RunContext, context_of
from batch_observability.run import Run, Stage

_CONNECTED_WITHIN_S = 0.5
_DRAIN_S = 0.5

_run: Run | None = None
_joining = False
_lock = threading.RLock()


def join() -> Run | None:
    """Return the run that this process is a part of, connected to its observer if that is there; None if in none."""
    global _run, _joining  # noqa: PLW0603  (a process is a part of one run)
    with _lock:
        # A signal handler that logs while we connect is in no run yet.
        if _run is None and not _joining:
            _joining = True
            try:
                context = _context()
                _run = _RunOfJob(context, _channel()) if context else None
            finally:
                _joining = False
        return _run


def _context() -> RunContext | None:
    """Read what the job was given; what cannot be read is no run, for it may be anybody's."""
    try:
        context = context_of(json.loads(os.environ[RUN_VARIABLE]))
        # All that log lines need of it is there.
        Run(context)
    except Exception:
        return None
    return context


def _channel() -> Channel | None:
    path = os.environ.get(CHANNEL_VARIABLE)
    if not path:
        return None
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(_CONNECTED_WITHIN_S)
        sock.connect(path)
        channel = Channel(sock)
    except (OSError, ValueError):
        sock.close()
        return None
    # Before this process leaves; children of multiprocessing leave without it, and see to it themselves.
    atexit.register(lambda: channel.drain(_DRAIN_S))
    return channel


class _RunOfJob(Run):
    """The run of a job, in one of the job's processes."""

    def __init__(self, context: RunContext, channel: Channel | None) -> None:
        super().__init__(context, channel)
        self._carried = False
        self._carry()

    def _enter(self, stage: Stage) -> None:
        super()._enter(stage)
        self._carry()

    def _carry(self) -> None:
        """Let children of multiprocessing go on in the stage that is open here; the run they would find themselves."""
        if self._carried or "multiprocessing.process" not in sys.modules:
            return
        self._carried = True
        with suppress(Exception):
            from batch_observability.logs.children import carry

            carry()


def _after_fork_in_child() -> None:
    global _lock, _joining
    _lock, _joining = threading.RLock(), False


os.register_at_fork(after_in_child=_after_fork_in_child)
