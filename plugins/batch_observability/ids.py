"""
Ids of traces and spans: read from a W3C traceparent, or derived so that everybody who knows a run gets the same.

Deriving is what lets a run span point at a task span that another process sends later, or again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"(?!ff|00.{54})[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


@dataclass(frozen=True)
class TraceParent:
    """A place in a trace: 128-bit trace id, 64-bit span id, both not zero."""

    trace_id: int
    span_id: int


def parse_traceparent(text: object) -> TraceParent | None:
    """Read a traceparent header (https://www.w3.org/TR/trace-context/); None if it is not one."""
    match = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    trace_id, span_id = int(match[1], 16), int(match[2], 16)
    return TraceParent(trace_id, span_id) if trace_id and span_id else None


def format_traceparent(trace_id: int, span_id: int) -> str:
    """Write a traceparent header of a place that is kept."""
    return f"00-{hex_trace_id(trace_id)}-{hex_span_id(span_id)}-01"


def derive_span_id(*parts: object) -> int:
    """Return the 64-bit span id of what the parts name; never zero."""
    return _derive(8, parts)


def derive_trace_id(*parts: object) -> int:
    """Return the 128-bit trace id of what the parts name; never zero."""
    return _derive(16, parts)


def _derive(size: int, parts: tuple[object, ...]) -> int:
    # It loads OpenSSL, which who draws its ids at random need not wait for.
    from hashlib import blake2b

    digest = blake2b("\0".join(map(str, parts)).encode("utf-8", "surrogatepass"), digest_size=size).digest()
    return int.from_bytes(digest, "big") or 1


def hex_trace_id(trace_id: int) -> str:
    """Write a trace id as 32 hex digits."""
    return f"{trace_id:032x}"


def hex_span_id(span_id: int) -> str:
    """Write a span id as 16 hex digits."""
    return f"{span_id:016x}"
