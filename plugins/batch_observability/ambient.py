"""
The span that somebody else's tracer has open here: ddtrace or OpenTelemetry, if the process uses one.

Log lines within such a span belong to it. Tracers are looked up, never imported: a process that uses none pays two
look-ups. Standard library only.
"""

from __future__ import annotations

import sys

# Trace id and span id.
Place = tuple[int, int]


def ambient_span() -> Place | None:
    """Return where the innermost active span of a tracer is, if it is one that is kept. Never raises."""
    modules = sys.modules
    if "ddtrace.trace" not in modules and "opentelemetry.trace" not in modules:
        return None
    try:
        return _of_ddtrace() or _of_opentelemetry()
    except Exception:
        # A tracer that is half loaded, or of a version that we do not know: then the line is the stage's.
        return None


def _of_ddtrace() -> Place | None:
    tracer = getattr(sys.modules.get("ddtrace.trace"), "tracer", None)
    span = tracer.current_span() if tracer is not None and tracer.enabled else None
    if span is None:
        return None
    priority = span.context.sampling_priority
    # It is decided late: None is not yet.
    return (span.trace_id, span.span_id) if priority is None or priority > 0 else None


def _of_opentelemetry() -> Place | None:
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return (context.trace_id, context.span_id) if context.is_valid and context.trace_flags.sampled else None
