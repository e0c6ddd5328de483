"""
How a thing in Datadog is known as ours, and as which: by the tags `managed_by` and `batchobs_key`.

Dashboards have no tags but those of teams: they have the same two words in their description. A retention filter has
neither and is known by its name, which is ours alone.
"""

from __future__ import annotations

import re
from typing import Any

from batch_observability.datadog import retention
from batch_observability.datadog.resource import DASHBOARD, KEY_TAG, MANAGED_BY, RETENTION_FILTER, SERVICE

_IN_TEXT = re.compile(rf"(?<!\S){re.escape(MANAGED_BY)} {re.escape(KEY_TAG)}:(\S+)")
# Of Datadog's types of filters, the one that can be made; the others are its own.
_OF_RETENTION = "spans-sampling-processor"


def key_of(kind: str, body: dict[str, Any]) -> str:
    """Return the key of what Datadog has; "" if it is not ours."""
    if kind == DASHBOARD:
        found = _IN_TEXT.search(body.get("description") or "")
        return found[1] if found else ""
    if kind == RETENTION_FILTER:
        ours = body.get("name") == retention.NAME and body.get("filter_type") == _OF_RETENTION
        return retention.KEY if ours else ""
    tags = (body.get("metadata") or {}).get("tags") if kind == SERVICE else body.get("tags")
    tags = tags or []
    if MANAGED_BY not in tags:
        return ""
    return next((one.partition(":")[2] for one in tags if one.startswith(f"{KEY_TAG}:")), "")
