"""
The environment of a job: what this process was given, and the variables by which its parts find the run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from batch_observability import schema
from batch_observability.context import CHANNEL_VARIABLE, RUN_VARIABLE, RunContext
from batch_observability.ids import format_traceparent, parse_traceparent

_TRACEPARENT, _TRACESTATE, _RESOURCE = "TRACEPARENT", "TRACESTATE", "OTEL_RESOURCE_ATTRIBUTES"
_LOCALE = "LC_CTYPE"
# What OpenTelemetry calls them.
_SERVICE, _VERSION, _ENVIRONMENT = "service.name", "service.version", "deployment.environment.name"


def given() -> dict[str, str]:
    """Return the environment as this process was given it, before Python chose a locale for itself (PEP 538)."""
    environment = dict(os.environ)
    if _LOCALE in environment:
        try:
            block = Path("/proc/self/environ").read_bytes().split(b"\0")
        except OSError:
            return environment
        was = next((os.fsdecode(entry.partition(b"=")[2]) for entry in block if entry.startswith(b"LC_CTYPE=")), None)
        if was is None:
            del environment[_LOCALE]
        else:
            environment[_LOCALE] = was
    return environment


def of_job(base: Mapping[str, str], context: RunContext, channel: Path | None) -> dict[str, str]:
    """Return the environment of a job that runs as this run; `channel` is where its frames are taken."""
    environment = dict(base)
    # The state belongs to its parent; without one it means nothing (https://www.w3.org/TR/trace-context/).
    if parse_traceparent(environment.get(_TRACEPARENT)) is None:
        environment.pop(_TRACESTATE, None)
    environment[_TRACEPARENT] = format_traceparent(context.trace_id, context.span_id)
    environment[_RESOURCE] = _merged(environment.get(_RESOURCE, ""), context)
    environment[RUN_VARIABLE] = json.dumps(asdict(context), separators=(",", ":"))
    environment.pop(CHANNEL_VARIABLE, None)
    if channel is not None:
        environment[CHANNEL_VARIABLE] = os.fspath(channel)
    return environment


def _merged(there: str, context: RunContext) -> str:
    """Return resource attributes with the run's; those that are there already stay."""
    ours = {
        _SERVICE: context.model["service"],
        _VERSION: context.model["version"],
        _ENVIRONMENT: context.env,
        schema.MODEL_NAME: context.model["name"],
        schema.RUN_ID: context.run_id,
    }
    names = {part.partition("=")[0].strip() for part in there.split(",")}
    pairs = [f"{name}={quote(value, safe='')}" for name, value in ours.items() if value and name not in names]
    return ",".join([*([there.rstrip(", ")] if there.strip(", ") else []), *pairs])
