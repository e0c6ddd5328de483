"""
The output of a job as log lines, in `<state>/logs/jobs/<job>.jsonl`: a file that only its owner reads.

A line that is a JSON object gets the fields of the run that it has not; any other becomes the event of a line.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batch_observability import schema
from batch_observability.channel import Channel
from batch_observability.config import Settings
from batch_observability.context import RunContext, log_fields
from batch_observability.cron.output import Piece
from batch_observability.ids import hex_trace_id
from batch_observability.logs.masking import Masking
from batch_observability.private import private_folder
from batch_observability.redact import MASK, PrivateKeyLines

_FOLDER = ("logs", "jobs")
_MAX_FILE = 50_000_000
_OWN = (schema.LOG_TIMESTAMP, schema.LOG_LEVEL, schema.LOG_LOGGER, schema.LOG_EVENT)
_LEVELS = {"stdout": "info", "stderr": "error"}
_TRACE_ID = re.compile(r"[0-9a-f]{32}|[0-9]{1,19}")
_SPAN_ID = re.compile(r"[0-9]{1,19}")
_DRAIN_S = 1.0
_MEGABYTE = 1_000_000


class JobLog:
    """
    Makes lines of what one run writes.

    Args:
        context: the run.
        settings: the state folder, how long a line may be, how much may become lines, and what is masked.
        channel: to who is told of each line where lines are shipped; None where they are not.
    """

    def __init__(self, context: RunContext, settings: Settings, channel: Channel | None) -> None:
        self._fields = log_fields(context)
        self._stamped = (0, "")
        self._most = settings.log_max_bytes
        self._left = settings.capture_max_mb * _MEGABYTE
        self._missed = 0
        # Where nothing is to be captured, nothing is missed.
        self._captures = self._left > 0
        self._masking = Masking(settings.log_redact)
        self._key_lines: dict[str, PrivateKeyLines] = {}
        self._channel = channel
        self._context = context
        self._rest: dict[str, bytes] = {}
        folder = settings.state_path.joinpath(*_FOLDER)
        with suppress(OSError):
            private_folder(folder)
        self._path = folder / f"{quote(context.tags[schema.TAG_JOB], safe='')}.jsonl"

    def take(self, piece: Piece) -> None:
        """Write the lines that are whole now."""
        *lines, rest = (self._rest.pop(piece.stream, b"") + piece.data).split(b"\n")
        if piece.gap or len(rest) > self._most:
            lines.append(rest)
            rest = b""
        if rest:
            self._rest[piece.stream] = rest
        self._write([(piece.stream, piece.time_ns, line) for line in lines])

    def end(self, missed: int) -> None:
        """Write last lines that nobody ended, and how many bytes are no lines."""
        now_ns = time.time_ns()
        self._write([(stream, now_ns, rest) for stream, rest in self._rest.items()])
        self._rest.clear()
        missed += self._missed
        if missed and self._captures:
            event = f"{missed} bytes of the job's output are not captured"
            self._write_records([self._wrapped("batchobs", now_ns, "warning", event)])

    def _write(self, lines: list[tuple[str, int, bytes]]) -> None:
        """Write lines as far as they are within the bound, which counts what they are as JSON."""
        records = []
        for stream, time_ns, line in lines:
            if self._left <= 0:
                self._missed += len(line) + 1
            elif line.strip():
                record = self._record(stream, time_ns, line)
                # Bytes that are no text are written in several characters.
                self._left -= max(len(line) + 1, len(json.dumps(record[schema.LOG_EVENT], default=str)) - 1)
                records.append(record)
        self._write_records(records)

    def _record(self, stream: str, time_ns: int, line: bytes) -> dict[str, Any]:
        text = line[: self._most].decode("utf-8", "backslashreplace").rstrip("\r")
        if self._key_lines.setdefault(stream, PrivateKeyLines()).holds(text):
            return self._wrapped(stream, time_ns, _LEVELS[stream], MASK)
        if text.startswith("{"):
            with suppress(ValueError, RecursionError):
                # What it says itself of its time and its span, it knows best.
                return {**self._wrapped(stream, time_ns, _LEVELS[stream], ""), **json.loads(text)}
        return self._wrapped(stream, time_ns, _LEVELS[stream], text)

    def _wrapped(self, logger: str, time_ns: int, level: str, event: str) -> dict[str, Any]:
        return {
            schema.LOG_TIMESTAMP: self._stamp(time_ns),
            schema.LOG_LEVEL: level,
            schema.LOG_LOGGER: logger,
            schema.LOG_EVENT: event,
            **self._fields,
        }

    def _stamp(self, time_ns: int) -> str:
        if self._stamped[0] != time_ns:
            text = datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="microseconds")
            self._stamped = (time_ns, text)
        return self._stamped[1]

    def _write_records(self, records: list[dict[str, Any]]) -> None:
        lines = [json.dumps(record, default=str) for record in records]
        # Most output holds no secret: it is looked through as a whole.
        if self._masking.suspects("\n".join(lines)):
            records = [self._masking.event(record) for record in records]
            lines = [json.dumps(record, default=str) for record in records]
        # A full disk is the job's trouble already.
        with suppress(OSError):
            self._append("".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
        for record in records if self._channel is not None else ():
            self._ship(record)
        if self._channel is not None:
            # Nobody waits for this.
            self._channel.drain(_DRAIN_S)

    def _ship(self, record: dict[str, Any]) -> None:
        if self._channel is None:
            return
        known = {**self._fields, **dict.fromkeys(_OWN)}
        attributes = {
            name: value
            for name, value in record.items()
            if name not in _OWN and (name not in known or value != known[name])
        }
        frame = {
            "t": "log",
            "ts": _time_ns(record[schema.LOG_TIMESTAMP]) or time.time_ns(),
            "level": str(record[schema.LOG_LEVEL]),
            "logger": str(record[schema.LOG_LOGGER]),
            "event": str(record[schema.LOG_EVENT]),
            **self._place(record),
            "attributes": attributes,
        }
        self._channel.send(frame, optional=True)

    def _place(self, record: dict[str, Any]) -> dict[str, str]:
        """Return where a line belongs: to the span that it names, or to the run."""
        trace, span = str(record.get(schema.LOG_TRACE_ID, "")), str(record.get(schema.LOG_SPAN_ID, ""))
        if _TRACE_ID.fullmatch(trace) and _SPAN_ID.fullmatch(span):
            # 64 bits of it are written in decimal digits by older tracers.
            return {"trace": trace if len(trace) == 32 else hex_trace_id(int(trace)), "span": span}
        return {"trace": hex_trace_id(self._context.trace_id), "span": str(self._context.span_id)}

    def _append(self, data: bytes) -> None:
        if not data:
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, data)
            ours = os.fstat(descriptor)
            if ours.st_size > _MAX_FILE and os.path.samestat(ours, Path(self._path).stat()):
                self._path.replace(self._path.with_suffix(".jsonl.1"))
        finally:
            os.close(descriptor)


def _time_ns(text: object) -> int | None:
    """Return a time that a line has, if it is one with a zone."""
    with suppress(ValueError, TypeError, OverflowError):
        moment = datetime.fromisoformat(str(text))
        if moment.tzinfo is not None:
            return int(moment.timestamp() * 1_000_000) * 1000
    return None
