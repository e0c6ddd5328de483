"""
The environment of a job: what this process was given, and the variables by which its parts find the run.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TRACEPARENT, TRACESTATE, RESOURCE = "TRACEPARENT", "TRACESTATE", "OTEL_RESOURCE_ATTRIBUTES"
# As in `context`, which takes long to load.
CHANNEL_VARIABLE, RUN_VARIABLE = "BATCHOBS_CHANNEL", "BATCHOBS_RUN"
_LOCALE = "LC_CTYPE"
_CHUNK = 1 << 16


def given() -> dict[str, str]:
    """Return the environment as this process was given it, before Python chose a locale for itself (PEP 538)."""
    environment = dict(os.environ)
    if _LOCALE in environment:
        try:
            block = _whole("/proc/self/environ").split(b"\0")
        except OSError:
            return environment
        was = next((os.fsdecode(entry.partition(b"=")[2]) for entry in block if entry.startswith(b"LC_CTYPE=")), None)
        if was is None:
            del environment[_LOCALE]
        else:
            environment[_LOCALE] = was
    return environment


def of_job(
    base: Mapping[str, str], *, place: str, has_parent: bool, attributes: str, context: str, channel: str
) -> dict[str, str]:
    """
    Return the environment of a job that runs as a run.

    Args:
        base: what it is to have besides.
        place: of the run in its trace, as a traceparent.
        has_parent: the traceparent in the environment of this process is one.
        attributes: OpenTelemetry's resource attributes.
        context: of the run, as JSON.
        channel: path of the socket where its frames are taken, "" for none.
    """
    environment = dict(base)
    # The state belongs to its parent; without one it means nothing (https://www.w3.org/TR/trace-context/).
    if not has_parent:
        environment.pop(TRACESTATE, None)
    environment[TRACEPARENT] = place
    environment[RESOURCE] = attributes
    environment[RUN_VARIABLE] = context
    environment.pop(CHANNEL_VARIABLE, None)
    if channel:
        environment[CHANNEL_VARIABLE] = channel
    return environment


def _whole(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (pathlib takes long to load)
        return b"".join(iter(lambda: file.read(_CHUNK), b""))
