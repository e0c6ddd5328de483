"""
The format of a catalog as JSON Schema, for editors: made from the table that the reader goes by.

What JSON Schema cannot tell, as whether a time zone exists or two models have one name, `batchobs catalog check` tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batch_observability.catalog.fields import (
    CONTACT_KEYS,
    DEFAULT_KEYS,
    FILE_KEYS,
    LINK,
    MATCH_KEYS,
    MODEL_KEYS,
    OWNER_KEYS,
    SLA_KEYS,
    Key,
)

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema of a file of a catalog (JSON Schema, draft 2020-12)."""
    owner = _mapping(OWNER_KEYS, required=["team"])
    contact = _mapping(CONTACT_KEYS)
    owners = {
        "anyOf": [
            {"type": "array", "items": owner},
            {
                "type": "object",
                "propertyNames": {key: value for key, value in OWNER_KEYS["team"].schema.items() if key != "type"},
                "additionalProperties": {"anyOf": [contact, {"type": "null"}]},
            },
        ]
    }
    return {
        "$schema": _DIALECT,
        "title": "batch_models.yaml",
        "description": "Batch models, who answers for them, which tasks they are, and how their cron jobs run.",
        "type": ["object", "null"],
        "additionalProperties": False,
        "minProperties": 1,
        "properties": {
            "models": {
                "description": FILE_KEYS["models"],
                "type": "array",
                "items": _mapping(MODEL_KEYS, required=["name"]),
            },
            "owners": {"description": FILE_KEYS["owners"], **owners},
            "defaults": {"description": FILE_KEYS["defaults"], **_mapping(DEFAULT_KEYS)},
        },
    }


def _mapping(keys: Mapping[str, Key], **more: Any) -> dict[str, Any]:
    properties = {name: {"description": key.help, **_of_value(name, key)} for name, key in keys.items()}
    return {"type": "object", "additionalProperties": False, "properties": properties, **more}


def _of_value(name: str, key: Key) -> dict[str, Any]:
    schema = dict(key.schema)
    if name == "owner":
        return {"anyOf": [schema, _mapping(OWNER_KEYS, required=["team"])]}
    if name == "sla":
        return _mapping(SLA_KEYS)
    if name == "match":
        one = _mapping(MATCH_KEYS, minProperties=1)
        return {"anyOf": [one, {"type": "array", "items": one}]}
    if name == "links":
        return {**schema, "additionalProperties": dict(LINK.schema)}
    return schema
