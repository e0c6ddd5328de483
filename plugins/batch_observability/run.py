"""
What user code touches: the current run, its stages, rows, measurements and events. Standard library only.

Outside of an observed run `current_run()` is inert: the same calls do nothing, so the same code runs in a notebook
or a unit test.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from batch_observability import failure, schema
from batch_observability.ambient import ambient_span
from batch_observability.channel import Channel, Frame
from batch_observability.context import RUN_VARIABLE, RunContext, log_fields
from batch_observability.guard import guarded
from batch_observability.ids import derive_span_id, hex_trace_id
from batch_observability.objective import ModelError, format_duration, parse_duration
from batch_observability.redact import redact_text
from batch_observability.stages import Stage, common, still_open

__all__ = ["Run", "RunContext", "Stage", "current_run", "log_fields", "set_current_run"]

_MAX_TEXT = 4000

# From outside to inside. Generators and tasks end stages in any order: some of these may have ended.
_stages: ContextVar[tuple[Stage, ...]] = ContextVar("batch_model_stages", default=())


class Run:
    """
    One attempt of one batch model. Get it by `current_run()`; all methods are safe in threads and forked children.

    Without a channel a run is inert.

    Args:
        context: what is known of it.
        channel: to who observes it.
        redact: masks what must not leave the process.
        reobserve: starts another observer if the first is gone; None if there are to be no more.
    """

    def __init__(
        self,
        context: RunContext | None = None,
        channel: Channel | None = None,
        redact: Callable[[str], str] = redact_text,
        reobserve: Callable[[], Channel | None] | None = None,
    ) -> None:
        self.context = context
        self._channel = channel
        self._redact = redact
        self._reobserve = reobserve
        # Reentrant: a signal handler or a finalizer may count while we do.
        self._lock = threading.RLock()
        # Rows of this process; told as totals, so that a frame that is lost is made up for by the next.
        self._totals = dict.fromkeys(("read", "written", "rejected"), 0)
        # Of the main thread, for threads that opened none.
        self._main_stages: tuple[Stage, ...] = ()
        self._stages_begun = 0
        # Wall clock that cannot run backwards within a run.
        self._clock_ns = time.time_ns() - time.monotonic_ns()
        self._fields = log_fields(context) if context else {}
        self._ambient = ambient_span() if context else None

    @property
    def active(self) -> bool:
        """Whether somebody is listening."""
        return self._channel is not None

    @property
    def run_id(self) -> str:
        """Airflow's task instance id or the cron run's UUID; "" when inert."""
        return self.context.run_id if self.context else ""

    @property
    def trace_id(self) -> str:
        """The trace, as 32 hex digits; "" when inert."""
        return hex_trace_id(self.context.trace_id) if self.context else ""

    @property
    def current_stage(self) -> Stage | None:
        """
        The innermost open stage here; in a thread that opened none, that of the main thread.

        Where tasks of asyncio have stages open side by side, it is the one around all of them.
        """
        here = _stages.get()
        if here and here[-1]._ended is None and here[-1]._run is self:  # noqa: SLF001  (most often so)
            return here[-1]
        mine = [stage for stage in still_open(here) if stage._run is self]  # noqa: SLF001
        if not mine and threading.current_thread() is not threading.main_thread():
            mine = common(still_open(self._main_stages))
        return mine[-1] if mine else None

    def stage(self, name: str) -> Stage:
        """Open a stage for a `with` block; stages may nest."""
        return Stage(self, str(name))

    @guarded(None)
    def rows(self, *, read: int = 0, written: int = 0, rejected: int = 0) -> None:
        """Add to the number of rows read, written and rejected."""
        given = {"read": read, "written": written, "rejected": rejected}
        counts = {name: int(value) for name, value in given.items()}
        for name, count in counts.items():
            if count < 0:
                raise ValueError(f"rows({name}={count}): a number of rows is 0 or more")
            if count != given[name] and not isinstance(given[name], str):
                raise ValueError(f"rows({name}={given[name]}): a number of rows is a whole number")
        with self._lock:
            for name, count in counts.items():
                self._totals[name] += count
            self.tell("rows", pid=os.getpid(), **self._totals)

    @guarded(None)
    def measure(self, name: str, value: float, unit: str = "") -> None:
        """Record a number, such as a score or a drift, under a name that is the same in every run."""
        number = float(value)
        if not math.isfinite(number):
            raise ValueError(f"measure({name!r}, {value!r}): not a finite number")
        if not str(name).strip():
            raise ValueError("measure(): the name is empty")
        self.tell("measure", name=self._redact(str(name))[:100], value=number, unit=self._redact(str(unit))[:50])

    @guarded(None)
    def event(self, text: str) -> None:
        """Record that something happened, as text, at this moment."""
        stage = self.current_stage
        self.tell("event", text=self._redact(str(text))[:_MAX_TEXT], stage=stage.span_id if stage else 0)

    @guarded(None)
    def extend_sla(self, by: timedelta | str, *, reason: str) -> None:
        """
        Grant this run more time than its SLA promises; that is visible wherever the run is.

        Args:
            by: how much later `finish_within` and `finish_by` may be, `20m` or a timedelta; calls add up.
            reason: why, for those who wait for the run.

        Raises:
            ModelError: under pytest, if `by` is no duration; else that is logged.
        """
        try:
            granted = parse_duration(by)
        except ModelError as error:
            raise ModelError(f"extend_sla({by!r}): {error}") from None
        why = self._redact(str(reason))[:_MAX_TEXT]
        text = f"SLA extended by {format_duration(granted)}: {why}"
        self.tell("extend_sla", by_s=granted.total_seconds(), reason=why, text=text)

    def log_fields(self) -> dict[str, Any]:
        """Fields that make a log line find its trace, at this moment; empty when inert."""
        return dict(self.shared_log_fields())

    def shared_log_fields(self) -> dict[str, Any]:
        """As `log_fields`, and the same dict as long as the stage is the same: for those who leave it as it is."""
        stage = self.current_stage
        fields, outer = (stage._fields, stage._ambient) if stage else (self._fields, self._ambient)  # noqa: SLF001
        if not fields:
            return fields
        inner = ambient_span()
        if inner is None or inner == outer:
            return fields
        # A tracer's span that was opened within the stage.
        return {**fields, schema.LOG_TRACE_ID: hex_trace_id(inner[0]), schema.LOG_SPAN_ID: str(inner[1])}

    def tell(self, kind: str, **values: Any) -> None:
        """Send a frame to the observer; if that is gone, to a new one."""
        self._send({"t": kind, "ts": self._now_ns(), **values})

    @guarded(None)
    def tell_log(  # noqa: PLR0917  (the parts of a log line)
        self, time_ns: int, level: str, logger: str, event: str, trace_id: str, span_id: str, attributes: dict[str, Any]
    ) -> None:
        """Send a log line, made of plain and masked values, to the observer; it never displaces other frames."""
        line = {"level": level, "logger": logger, "event": event, "trace": trace_id, "span": span_id}
        self._send({"t": "log", "ts": time_ns, **line, "attributes": attributes}, optional=True)

    def _send(self, frame: Frame, **how: bool) -> None:
        if self._channel is None:
            return
        self._channel.send(frame, **how)
        if self._channel.broken and (channel := self._replacement()):
            # Its descriptor may be user code's by now: it must not be closed with the object.
            self._channel.close()
            self._channel = channel
            if any(self._totals.values()):
                channel.send({"t": "rows", "ts": self._now_ns(), "pid": os.getpid(), **self._totals})
            channel.send(frame, **how)

    def _replacement(self) -> Channel | None:
        with self._lock:
            # While it is made, another thread, or a signal handler in this one, must not make a second.
            reobserve, self._reobserve = self._reobserve, None
        channel = reobserve() if reobserve else None
        self._reobserve = reobserve if channel else None
        return channel

    def _now_ns(self) -> int:
        return self._clock_ns + time.monotonic_ns()

    @guarded(None)
    def _enter(self, stage: Stage) -> None:
        if self.context is None:
            return
        stage.name = self._redact(stage.name)
        here, outer = still_open(_stages.get()), self.current_stage
        with self._lock:
            self._stages_begun += 1
            number = self._stages_begun
            if threading.current_thread() is threading.main_thread():
                self._main_stages = (*still_open(self._main_stages), stage)
        stage.span_id = derive_span_id(schema.STAGE, self.context.span_id, self.context.start_ns, os.getpid(), number)
        stage._fields = {**self._fields, schema.LOG_SPAN_ID: str(stage.span_id), schema.LOG_STAGE: stage.name}
        stage._ambient, stage._around = ambient_span(), tuple(here)  # noqa: SLF001
        _stages.set((*here, stage))
        self.tell("stage", id=stage.span_id, name=stage.name[:200], parent=outer.span_id if outer else 0)

    @guarded(None)
    def _exit(self, stage: Stage, error: BaseException | None) -> None:
        if self.context is None:
            return
        _stages.set(tuple(still_open(_stages.get())))
        with self._lock:
            self._main_stages = tuple(still_open(self._main_stages))
        self.tell("stage_end", id=stage.span_id, error=self.describe(error))

    def describe(self, error: BaseException | str | None) -> dict[str, str] | None:
        """Type, message, traceback and fingerprint of an error, cut to size and with secrets masked; None for none."""
        if error is None:
            return None
        if isinstance(error, str):
            return {"type": "Error", "message": self._redact(error)[:_MAX_TEXT], "stack": ""}
        told = failure.describe(error, self._redact)
        return {"type": told.kind, "message": told.message, "stack": told.stack, "fingerprint": told.fingerprint}

    def _reset_after_fork(self) -> None:
        self._lock = threading.RLock()
        self._totals = dict.fromkeys(self._totals, 0)
        # The run is the parent's.
        self._reobserve = None


_INERT = Run()
# None until somebody asks: only then does a process look for the job that it is a part of.
_current: Run | None = None


def current_run() -> Run:
    """Return the run that this process is in; an inert one if it is in none."""
    if _current is None and RUN_VARIABLE in os.environ:
        from batch_observability.inherited import join

        set_current_run(join())
    elif _current is None:
        set_current_run(None)
    return _current or _INERT


def set_current_run(run: Run | None) -> None:
    """Make a run the one that `current_run()` returns; None for none."""
    global _current  # noqa: PLW0603  (a process is in one run at a time, in all its threads)
    _current = run or _INERT


os.register_at_fork(after_in_child=lambda: (_current or _INERT)._reset_after_fork())  # noqa: PLW0108, SLF001
