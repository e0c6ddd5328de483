"""
The log pipeline: what our fields are to Datadog, so that records have their own time, status, service and trace.

Lines are JSON, and parsed before a pipeline sees them. `error.kind`, `.message` and `.stack` are Datadog's own names of
them already. Model, owner and tier become tags, under the names that metrics have: a variable of a dashboard narrows
both.
"""

from __future__ import annotations

from batch_observability import schema
from batch_observability.datadog.queries import Json
from batch_observability.datadog.resource import KEY_TAG, MANAGED_BY, PIPELINE, Resource, made
from batch_observability.export.datadog_logs import SOURCE

KEY = "logs"
NAME = "batch_observability"
_TAGS = {
    schema.LOG_ENV: schema.TAG_ENV,
    schema.LOG_VERSION: schema.TAG_VERSION,
    schema.LOG_MODEL_NAME: schema.TAG_MODEL,
    schema.MODEL_OWNER: schema.TAG_OWNER,
    schema.MODEL_TIER: schema.TAG_TIER,
}


def pipeline() -> Resource:
    """Return the pipeline of all records of ours."""
    body = {
        "name": NAME,
        "description": f"Maps the fields of batch_observability to Datadog's. {MANAGED_BY} {KEY_TAG}:{KEY}",
        "tags": [MANAGED_BY, f"{KEY_TAG}:{KEY}"],
        "is_enabled": True,
        "filter": {"query": f"source:{SOURCE}"},
        "processors": [
            _remapper("date-remapper", "time of the record", schema.LOG_TIMESTAMP),
            _remapper("status-remapper", "status of the record", schema.LOG_LEVEL),
            _remapper("message-remapper", "message of the record", schema.LOG_EVENT),
            _remapper("service-remapper", "service of the model", schema.LOG_SERVICE),
            _remapper("trace-id-remapper", "trace of the run", schema.LOG_TRACE_ID),
            _remapper("span-id-remapper", "span of the run or its stage", schema.LOG_SPAN_ID),
            *(_tagged(field, tag) for field, tag in _TAGS.items()),
        ],
    }
    return made(PIPELINE, KEY, body)


def _remapper(kind: str, what: str, field: str) -> Json:
    return {"type": kind, "name": what, "is_enabled": True, "sources": [field]}


def _tagged(field: str, tag: str) -> Json:
    return {
        "type": "attribute-remapper",
        "name": f"{field} is the tag {tag}",
        "is_enabled": True,
        "sources": [field],
        "source_type": "attribute",
        "target": tag,
        "target_type": "tag",
        # Searches name the attribute as spans have it.
        "preserve_source": True,
        "override_on_conflict": False,
    }
