"""
Log lines of a run on their way: collected, put on disk, and sent from there while the run goes on.

A line is on disk, with fsync, two seconds after it was written; from then on it is sent however this process ends.
Files on disk are small enough to be sent at once, so that each is either taken or not. A line has no id at any target:
what a target may have taken without saying so is sent again, because a line that is there twice does less harm than
one that is missing.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from batch_observability import schema
from batch_observability.channel import OFFERED, PART, Frame
from batch_observability.context import log_fields
from batch_observability.export.deliver import Delivery, Report
from batch_observability.export.otlp_json import SEVERITIES
from batch_observability.export.replay import replay
from batch_observability.export.signals import LOGS, Batch, LogRecord
from batch_observability.export.target import taken_by
from batch_observability.ids import hex_trace_id
from batch_observability.sidecar.apart import Apart
from batch_observability.sidecar.observation import Observation

log = logging.getLogger("batch_observability.sidecar")

LOG = "log"
_KINDS = (LOG, PART, OFFERED)
_MAX_RECORDS, _MAX_BYTES, _MAX_WAIT_S = 1000, 2_000_000, 2.0
# Parts of lines that were never completed.
_MAX_CUT_BYTES = 8_000_000
_FIELD_BYTES = 20
_MAX_DEPTH = 20
_REPLAY_S = 10.0
_PAUSE_S, _LONGEST_PAUSE_S, _LOOKS_AROUND_S = 5.0, 60.0, 0.5


class Shipping:
    """
    The log lines of one run.

    Args:
        observation: of the run; it takes all other frames.
        delivery: where to.
        apart: does something beside this process.

    Attributes:
        used: some were put on disk.
    """

    def __init__(self, observation: Observation, delivery: Delivery, apart: Apart) -> None:
        self._observation = observation
        self._delivery = delivery
        self._apart = apart
        self._takers = [name for name in delivery.targets if LOGS in taken_by(name)]
        self._fields = log_fields(observation.context)
        self._records: list[LogRecord] = []
        self._bytes = 0
        self._since = 0.0
        self._parts: dict[int, list[str]] = {}
        # By process: how many lines it had to send.
        self._offered: dict[int, int] = {}
        self._received = self._lost = 0
        self._sender = -1
        self._complained = False
        self.used = False

    # --- Frames -------------------------------------------------------------------------------------------------

    def add(self, frame: Frame) -> None:
        """Take in one frame of the run."""
        if frame["t"] in _KINDS:
            self.add_late(frame)
        else:
            self._observation.add(frame)

    def add_late(self, frame: Frame) -> None:
        """Take in one frame that comes after the last one of the run: a log line may."""
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            match frame["t"]:
                case "log":
                    self._add(frame)
                case "part":
                    self._add_part(frame)
                case "offered":
                    self._note(frame)

    def _note(self, frame: Frame) -> None:
        pid, number = int(frame["pid"]), int(frame["n"])
        self._offered[pid] = max(self._offered.get(pid, 0), number)

    def _add_part(self, frame: Frame) -> None:
        pid = int(frame["pid"])
        self._note(frame)
        parts = self._parts.setdefault(pid, [])
        parts.append(frame["text"])
        if not frame["last"]:
            if sum(map(len, parts)) > _MAX_CUT_BYTES:
                del self._parts[pid]
            return
        whole = json.loads("".join(self._parts.pop(pid)))
        if whole["t"] == LOG:
            self._add(whole)

    def _add(self, frame: Frame) -> None:
        self._note(frame)
        record = self._record(frame)
        self._received += 1
        if not self._takers:
            self._complain()
            return
        size = _size(record)
        if self._records and self._bytes + size > _MAX_BYTES:
            self._put()
        if not self._records:
            self._since = time.monotonic()
        self._records.append(record)
        self._bytes += size
        if len(self._records) >= _MAX_RECORDS:
            self._put()

    def _record(self, frame: Frame) -> LogRecord:
        trace_id, span_id = int(frame["trace"], 16), int(frame["span"])
        if trace_id >> 128 or span_id >> 64:
            raise ValueError("no ids of a span")
        own = {name: _shallow(value) for name, value in frame["attributes"].items()}
        ids = {schema.LOG_TRACE_ID: hex_trace_id(trace_id), schema.LOG_SPAN_ID: str(span_id)}
        return LogRecord(
            time_ns=abs(int(frame["ts"])),
            level=frame["level"] if frame["level"] in SEVERITIES else "info",
            event=str(frame["event"]),
            trace_id=trace_id,
            span_id=span_id,
            attributes={**self._fields, **own, **ids},
            logger=str(frame["logger"]),
        )

    def _complain(self) -> None:
        if not self._complained:
            self._complained = True
            log.warning(
                "BATCHOBS_SHIP_LOGS is on, and none of %s takes log lines: batchobs doctor says why",
                ", ".join(self._delivery.targets),
            )

    # --- Disk, and the way on ------------------------------------------------------------------------------------

    def patience_s(self) -> float:
        """Seconds until lines are to be on disk."""
        return max(self._since + _MAX_WAIT_S - time.monotonic(), 0.0) if self._records else float("inf")

    def look(self) -> None:
        """Put on disk what has waited long enough, and see that it is sent."""
        if not self.patience_s():
            self._put()

    def _put(self) -> None:
        context, records = self._observation.context, tuple(self._records)
        self._records, self._bytes = [], 0
        model = context.model
        if not self._delivery.keep(
            Batch(model["service"], model["version"], context.env, f"{context.run_id}-log", logs=records)
        ):
            self._lost += len(records)
            return
        self.used = True
        if self._apart.forks and self._takers != ["spool"] and not self._is_being_sent():
            self._send()

    def _is_being_sent(self) -> bool:
        """Whether the child is there: it holds the other end of a pipe as long as it lives."""
        if self._sender < 0:
            return False
        with suppress(BlockingIOError):
            os.read(self._sender, 1)
            os.close(self._sender)
            self._sender = -1
        return self._sender >= 0

    def _send(self) -> None:
        self._sender, held = os.pipe()
        os.set_blocking(self._sender, False)
        observer = os.getpid()
        try:
            self._apart(lambda: _send_while_there_is_something(self._delivery, lambda: os.getppid() == observer))
        finally:
            os.close(held)

    def finish(self) -> None:
        """Put the rest on disk, and count what was lost on the way."""
        if self._records:
            self._put()
        self._observation.dropped_logs += self._lost + max(sum(self._offered.values()) - self._received, 0)
        self._offered.clear()
        self._received = self._lost = 0

    def may_send_rest(self, report: Report) -> bool:
        """Whether to send what is left; where even our own ending was not taken, nobody is there to take it."""
        if not report.ledger and not any(report.targets.values()):
            return True
        return self.used and any(not report.targets[name] for name in self._takers if name != "spool")

    def send_rest(self) -> None:
        """Send what is left, of this run and of others."""
        replay(self._delivery, _REPLAY_S)


def _send_while_there_is_something(delivery: Delivery, is_wanted: Callable[[], bool]) -> None:
    """Send what waits on disk, again and again, until nothing has come for a while, or nobody wants it any more."""
    pause_s = _PAUSE_S
    while is_wanted():
        refused = replay(delivery, _REPLAY_S).refused
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S) if refused else _PAUSE_S
        until = time.monotonic() + pause_s
        while time.monotonic() < until and is_wanted():
            time.sleep(_LOOKS_AROUND_S)
        if not any(delivery.spool.paths(name) for name in delivery.targets):
            return


def _shallow(value: Any, depth: int = _MAX_DEPTH) -> Any:
    """Return a value as deep as it can be read back from disk; what is deeper becomes text."""
    if not isinstance(value, dict | list):
        return value
    if not depth:
        return str(value)
    if isinstance(value, list):
        return [_shallow(inner, depth - 1) for inner in value]
    return {name: _shallow(inner, depth - 1) for name, inner in value.items()}


def _size(record: LogRecord) -> int:
    """Return about how many bytes a record has on its way."""
    return len(record.event) + sum(map(_length, record.attributes.values()))


def _length(value: Any) -> int:
    return _FIELD_BYTES + (len(value) if isinstance(value, str) else 0 if isinstance(value, int) else len(str(value)))
