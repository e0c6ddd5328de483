"""
The retention filter that keeps the span of every run: dashboards count them, and a failed run must have its trace.
"""

from __future__ import annotations

from batch_observability import schema
from batch_observability.datadog.queries import OPERATION
from batch_observability.datadog.resource import RETENTION_FILTER, Resource, made

KEY = "runs"
# All that is known of a retention filter is its name: it has no tags.
NAME = f"batch_observability: every {schema.RUN}"


def retention_filter() -> Resource:
    """Return the filter; the rest of a trace is kept by the filters that are there."""
    body = {
        "name": NAME,
        "enabled": True,
        "filter_type": "spans-sampling-processor",
        "filter": {"query": f"{OPERATION}:{schema.RUN}"},
        "rate": 1.0,
    }
    return made(RETENTION_FILTER, KEY, body)
