"""
One thing that exists in Datadog because of a catalog: what it is, its key, and its body as the API takes it.

A body never holds an id of Datadog's. Where it needs that of another resource it holds a reference, which is filled in
when that one has been made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DASHBOARD, MONITOR, SLO = "dashboard", "monitor", "slo"
SERVICE, PIPELINE, RETENTION_FILTER = "service", "pipeline", "retention_filter"
# In this order none refers to one that comes later.
KINDS = (PIPELINE, RETENTION_FILTER, DASHBOARD, MONITOR, SLO, SERVICE)
# Tags by which a monitor or an SLO is known as ours, and as which.
MANAGED_BY = "managed_by:batch_observability"
KEY_TAG = "batchobs_key"
REFERENCE = re.compile(r"\{\{ref:([a-z_]+):([^{}]+)\}\}")


@dataclass(frozen=True)
class Resource:
    """
    One dashboard, monitor, SLO, service entry, log pipeline or retention filter.

    Attributes:
        kind: one of `KINDS`.
        key: stable, and unique within its kind.
        body: as the API takes it when it is made, with references in place of ids.
        needs: `kind:key` of each resource that the body refers to.
    """

    kind: str
    key: str
    body: dict[str, Any]
    needs: tuple[str, ...] = ()


def made(kind: str, key: str, body: dict[str, Any]) -> Resource:
    """Return a resource with what its body needs."""
    return Resource(kind, key, body, needs_of(body))


def reference(kind: str, key: str) -> str:
    """Return what stands in a body for the id of another resource."""
    return "{{ref:" + kind + ":" + key + "}}"


def needs_of(value: Any) -> tuple[str, ...]:
    """Return `kind:key` of all references in a body, in their order, each once."""
    if isinstance(value, str):
        return tuple(dict.fromkeys(f"{kind}:{key}" for kind, key in REFERENCE.findall(value)))
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return tuple(dict.fromkeys(need for child in children for need in needs_of(child)))


def filled(value: Any, ids: Mapping[str, str | int]) -> Any:
    """
    Return a body with each reference replaced by its id from `ids`, by `kind:key`.

    A text that is nothing but a reference becomes the id as it is, a number where Datadog has a number.

    Raises:
        KeyError: for what is not in `ids`.
    """
    if isinstance(value, str):
        if whole := REFERENCE.fullmatch(value):
            return ids[f"{whole[1]}:{whole[2]}"]
        return REFERENCE.sub(lambda found: str(ids[f"{found[1]}:{found[2]}"]), value)
    if isinstance(value, dict):
        return {key: filled(child, ids) for key, child in value.items()}
    return [filled(child, ids) for child in value] if isinstance(value, list | tuple) else value
