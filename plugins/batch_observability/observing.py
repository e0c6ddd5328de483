"""
A run that is observed from within its own process, from the start of its observer to its last frame.

It is this process's one run meanwhile. Who begins it, Airflow's hooks or `observe`, says when and how it ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from batch_observability.channel import Channel
from batch_observability.config import Settings
from batch_observability.context import RunContext
from batch_observability.redact import redact_text
from batch_observability.run import Run, current_run, set_current_run
from batch_observability.sidecar.spawn import Observer, start_observer
from batch_observability.usage import process_usage

# How long the end may wait for a socket that is full; the end's budget is 20 ms.
_DRAIN_S = 0.01
# Where observers die one after the other, something is wrong that one more will not mend.
_REOBSERVED_AT_MOST = 3


class Observed:
    """
    The open run of this process, from now on what `current_run()` returns.

    Args:
        context: what is known of it.
        settings: of this process.
        redact: masks what must not leave the process.
        ends_with_process: the observer's container ends with this process: it must have sent or kept all before.
        airflow_tracing: Airflow sends spans of its own.

    Attributes:
        run: for user code.
    """

    def __init__(
        self,
        context: RunContext,
        settings: Settings,
        redact: Callable[[str], str] = redact_text,
        *,
        ends_with_process: bool = False,
        airflow_tracing: bool = False,
    ) -> None:
        self._context = context
        self._settings = settings
        self._ends_with_process = ends_with_process
        self._airflow_tracing = airflow_tracing
        # A forked child of user code has no open run.
        self._pid = os.getpid()
        self._is_open = True
        self._reobserved = 0
        self._observer = self._start()
        self.run = Run(context, self._observer.channel, redact, self._reobserve)
        set_current_run(self.run)

    @property
    def is_open(self) -> bool:
        """Whether it is this process's to end, and has not ended."""
        return self._is_open and self._pid == os.getpid()

    @property
    def must_wait(self) -> bool:
        """Whether this process must not leave before the end is acknowledged."""
        return self._ends_with_process or not self._observer.separate

    def close(self, kind: str, *, acknowledged: bool = False, **values: Any) -> None:
        """Tell the last frame, and be in no run any more; wait until it is acknowledged, if asked to or if need be."""
        dropped = self._observer.channel.dropped
        self.run.tell(kind, usage=process_usage(), dropped=dropped, **values)
        self._is_open = False
        # If the observer was gone, this is that of another.
        channel = self._observer.channel
        channel.drain(_DRAIN_S)
        if acknowledged or self.must_wait:
            channel.wait_acknowledged(self._settings.wait_timeout)
        channel.close()
        set_current_run(None)

    def _start(self) -> Observer:
        return start_observer(self._context, self._settings.as_frame(), airflow_tracing=self._airflow_tracing)

    def _reobserve(self) -> Channel | None:
        """Start another observer: the first is gone. It goes on from what that one kept on disk."""
        # A run that was begun before this one may still be talking.
        if not self.is_open or current_run() is not self.run or self._reobserved >= _REOBSERVED_AT_MOST:
            return None
        # By now its descriptor may be user code's, which must not lose it.
        self._observer.channel.close()
        self._observer = self._start()
        self._reobserved += 1
        return self._observer.channel


def logs_follow() -> None:
    """Let children that multiprocessing starts afresh go on with the run, where there may be any."""
    # To load what carries it takes longer than most runs should.
    if not sys.modules.keys().isdisjoint(("multiprocessing.process", "batch_observability.logs")):
        from batch_observability.logs.children import carry

        carry()


def logs_end() -> None:
    """Write what flood control has kept back; children that are started from now on are in no run."""
    # Else nobody has configured logging, and nothing is kept back.
    if "batch_observability.logs.configure" in sys.modules:
        from batch_observability.logs import configure

        configure.finish()
    if "batch_observability.logs.children" in sys.modules:
        from batch_observability.logs import children

        children.carry_no_more()
