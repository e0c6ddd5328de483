"""What Datadog's own client thinks of a body: what it cannot parse, and what it does not know."""

from __future__ import annotations

KINDS = {
    "dashboard": ("v1", "dashboard", "Dashboard"),
    "monitor": ("v1", "monitor", "Monitor"),
    "slo": ("v1", "service_level_objective_request", "ServiceLevelObjectiveRequest"),
    "pipeline": ("v1", "logs_pipeline", "LogsPipeline"),
    "service": ("v2", "entity_v3", "EntityV3"),
    "retention_filter": ("v2", "retention_filter_create_attributes", "RetentionFilterCreateAttributes"),
}


def complaints(kind: str, body: dict) -> list[str]:
    """Return what the client finds unparsed or unknown in a body."""
    from importlib import import_module

    from datadog_api_client import Configuration
    from datadog_api_client.model_utils import validate_and_convert_types

    version, module, name = KINDS[kind]
    model = getattr(import_module(f"datadog_api_client.{version}.model.{module}"), name)
    try:
        parsed = validate_and_convert_types(body, (model,), ["body"], True, True, Configuration())
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    return list(_walk(parsed, kind))


def _walk(value: object, place: str):
    name = type(value).__name__
    # The client's models answer any name: what they hold is asked of their dictionary.
    held = getattr(value, "__dict__", {})
    if name == "UnparsedObject" or held.get("_unparsed"):
        yield f"{place}: unparsed {name}"
        return
    if "_data_store" in held:
        for key, child in held["_data_store"].items():
            if key not in value.openapi_types:
                yield f"{place}.{key}: not known to {name}"
            yield from _walk(child, f"{place}.{key}")
        # What one of several models has taken is kept by that one.
        for taken in held.get("_composed_instances", ()):
            yield from _walk(taken, place)
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from _walk(child, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield from _walk(child, f"{place}[{index}]")
    elif not isinstance(value, str | int | float | bool | type(None)):
        yield f"{place}: {name}"
