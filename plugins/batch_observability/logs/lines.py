"""
The one way from an event to a line: run fields, masking, size, flood control, shipping.

Most lines are short and hold no secret: for those this is one call of the JSON encoder, and a few searches. The run's
part of a line is encoded once for each stage.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]
from typing import Any

from batch_observability import schema
from batch_observability.config import Settings
from batch_observability.logs.correlation import run_fields
from batch_observability.logs.flood import Flood, Verdict
from batch_observability.logs.jsonable import INT64, MAX_TEXT, SCALARS, cut, plain_fields, shortened, text
from batch_observability.logs.masking import Masking
from batch_observability.logs.record import LEVELS, beside, error_fields
from batch_observability.logs.shipping import ship
from batch_observability.run import current_run

_ALWAYS = frozenset({schema.LOG_TIMESTAMP, schema.LOG_LEVEL, schema.LOG_LOGGER})
# What a line keeps whatever its size.
_KEPT = frozenset({schema.LOG_LEVEL, schema.LOG_LOGGER, schema.LOG_TRACE_ID, schema.LOG_SPAN_ID})
_MAX_NAME = 200
_MAX_CACHED = 200
# Time, and what flood control adds.
_FRAME_BYTES = 150
# Characters of a text and values of a list, tried one after the other until a line is short enough.
_SHORTER = ((2, 1000), (8, 300), (32, 100), (128, 30), (512, 10), (4096, 3))


def _encoder() -> Callable[[Any], str]:
    if c_make_encoder is None:
        return json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    # As JSONEncoder.encode, which makes this anew each time. Nothing here holds itself.
    encode = c_make_encoder(None, text, encode_basestring, None, ": ", ", ", False, False, False)
    return lambda value: "".join(encode(value, 0))


_encode = _encoder()


@dataclass(frozen=True)
class _RunPart:
    """What the run has to say in a line, encoded."""

    fields: dict[str, Any]
    encoded: str
    names: frozenset[str]


class Lines:
    """
    Makes lines of events.

    Args:
        settings: size, burst and patterns, and whether the run's observer is told.
        write: gets each line; never raises.
        show: makes of a record what a person reads; None for JSON.
        known: masks what somebody else knows to be a secret.
    """

    def __init__(
        self,
        settings: Settings,
        write: Callable[[str], None],
        *,
        show: Callable[[dict[str, Any]], str] | None = None,
        known: Callable[[str], str] | None = None,
    ) -> None:
        self._write = write
        self._show = show
        self._ships = settings.ship_logs
        self._masking = Masking(settings.log_redact, known)
        self._max_bytes = settings.log_max_bytes - _FRAME_BYTES
        self._flood = Flood(settings.log_burst, self._again)
        self._heads: dict[tuple[str, str], str] = {}
        self._run_parts: dict[int, _RunPart] = {}
        self._second = (0, "")

    def write(self, name: str, level: str, event_dict: MutableMapping[str, Any], time_ns: int | None = None) -> None:
        """Write an event, whose `event` may be any object, as may be its fields. Never raises."""
        try:
            body = self._body(name, level, event_dict)
        except Exception as error:
            # Nothing of the event: it may be what could not be masked.
            said = encode_basestring(f"a log line could not be made: {type(error).__name__}")
            body = f"{self._head(name, level)}{said}{self._run_part().encoded}}}"
        if body is not None:
            self._put(body, time.time_ns() if time_ns is None else time_ns)

    def finish(self) -> None:
        """Tell what flood control has kept back and not told yet."""
        self._flood.finish()

    # --- From an event to the body of a line, which is all but its time -----------------------------------------

    def _body(self, name: str, level: str, event_dict: MutableMapping[str, Any]) -> str | None:
        event = event_dict.pop(schema.LOG_EVENT, "")
        run = self._run_part()
        if "exc_info" in event_dict:
            error = error_fields(event_dict.pop("exc_info"), self._masking.text)
            event_dict = {**error, **beside(event_dict, error)} if error else event_dict
        if not run.names.isdisjoint(event_dict):
            event_dict = beside(event_dict, {**dict.fromkeys(_ALWAYS), **run.fields})
        said = self._said(event, event_dict)
        head = self._head(name, level)
        number = LEVELS[level]
        if number < LEVELS["error"]:
            verdict = self._flood.weigh((head, said), lambda: self._whole(head, said, run), number)
            if verdict is Verdict.DROP:
                return None
            if verdict is Verdict.COLLAPSE:
                return f"{self._whole(head, said, run)[:-1]}, {encode_basestring(schema.LOG_COLLAPSED)}: true}}"
        return self._whole(head, said, run)

    def _said(self, event: Any, fields: Mapping[str, Any]) -> tuple[str, str]:
        """Encode message and fields, the latter without braces, and mask them."""
        if type(event) is not str:
            event = text(event)
        encoded = encode_basestring(event), self._encoded(fields)
        if len(encoded[0]) + len(encoded[1]) > MAX_TEXT:
            event, fields = cut(event, MAX_TEXT), plain_fields(fields)
            encoded = encode_basestring(event), self._encoded(fields)
        if not self._masking.suspects(f"{encoded[0]} {encoded[1]}"):
            return encoded
        masked = self._masking.event({schema.LOG_EVENT: event, **plain_fields(fields)})
        return encode_basestring(text(masked.pop(schema.LOG_EVENT))), self._encoded(masked)

    @staticmethod
    def _encoded(fields: Mapping[str, Any]) -> str:
        if not fields:
            return ""
        for value in fields.values():
            kind = type(value)
            if kind not in SCALARS or (kind is int and value not in INT64):
                fields = plain_fields(fields)
                break
        try:
            return _encode(fields)[1:-1]
        except Exception:
            # A number that is none.
            return _encode(plain_fields(fields))[1:-1]

    def _whole(self, head: str, said: tuple[str, str], run: _RunPart) -> str:
        event, fields = said
        body = f"{head}{event}{run.encoded}, {fields}}}" if fields else f"{head}{event}{run.encoded}}}"
        size = len(body)
        if not body.isascii():
            # A lone surrogate (a file name that is not UTF-8) becomes "?": no receiver takes it.
            encoded = body.encode("utf-8", "replace")
            size = len(encoded)
            body = encoded.decode()
        return body if size <= self._max_bytes else self._cut_down(body)

    def _cut_down(self, body: str) -> str:
        record = json.loads("{" + body)
        kept = {name: value for name, value in record.items() if name in _KEPT}
        for part, most in _SHORTER:
            longest = max(40, self._max_bytes // part)
            shorter = _encode({**shortened(record, longest, most + len(run_fields())), **kept})
            if len(shorter.encode()) <= self._max_bytes:
                return shorter[1:]
        return _encode({**kept, schema.LOG_EVENT: cut(record[schema.LOG_EVENT], 100)})[1:]

    def _head(self, name: str, level: str) -> str:
        head = self._heads.get((name, level))
        if head is None:
            if len(self._heads) > _MAX_CACHED:
                self._heads.clear()
            said = {schema.LOG_LEVEL: level, schema.LOG_LOGGER: self._masking.text(cut(name, _MAX_NAME))}
            head = f"{_encode(said)[1:-1]}, {encode_basestring(schema.LOG_EVENT)}: "
            self._heads[name, level] = head
        return head

    def _run_part(self) -> _RunPart:
        fields = run_fields()
        part = self._run_parts.get(id(fields))
        if part is None or part.fields is not fields:
            if len(self._run_parts) > _MAX_CACHED:
                self._run_parts.clear()
            masked = plain_fields(self._masking.event(fields))
            encoded = f", {_encode(masked)[1:-1]}" if masked else ""
            part = _RunPart(fields, encoded, _ALWAYS.union(fields))
            if masked.keys() == fields.keys():
                # Else the stack was at its end.
                self._run_parts[id(fields)] = part
        return part

    # --- Out ----------------------------------------------------------------------------------------------------

    def _put(self, body: str, time_ns: int) -> None:
        line = f'{{"{schema.LOG_TIMESTAMP}": "{self._time(time_ns)}", {body}'
        shown = line
        if self._show is not None:
            with suppress(Exception):
                shown = self._show(json.loads(line))
        self._write(shown)
        if self._ships and current_run().active:
            ship(json.loads(line))

    def _again(self, body: str, repeated: int) -> None:
        self._put(f"{body[:-1]}, {encode_basestring(schema.LOG_REPEATED)}: {repeated}}}", time.time_ns())

    def _time(self, time_ns: int) -> str:
        seconds, rest = divmod(time_ns, 1_000_000_000)
        known, written = self._second
        if known != seconds:
            written = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")[:-6]
            self._second = (seconds, written)
        return f"{written}.{rest // 1000:06d}+00:00"
