"""
Resources as Terraform's JSON (`*.tf.json`), for those who apply by Terraform and not by `batchobs datadog apply`.

Dashboards and monitors go as the JSON of Datadog's API (`datadog_dashboard_json`, `datadog_monitor_json`), so nothing
is lost on the way; the other kinds have no such resource in the provider and are written in its own attributes. What
is in Datadog already is taken over by `import` blocks (Terraform 1.5), if its id is known.
Source: https://registry.terraform.io/providers/DataDog/datadog/latest/docs
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from batch_observability.datadog.resource import (
    DASHBOARD,
    MONITOR,
    PIPELINE,
    REFERENCE,
    RETENTION_FILTER,
    SERVICE,
    SLO,
    Resource,
)

Json = dict[str, Any]

_TYPES = {
    DASHBOARD: "datadog_dashboard_json",
    MONITOR: "datadog_monitor_json",
    SLO: "datadog_service_level_objective",
    SERVICE: "datadog_software_catalog",
    PIPELINE: "datadog_logs_custom_pipeline",
    RETENTION_FILTER: "datadog_apm_retention_filter",
}
_PROVIDER = {"terraform": {"required_providers": {"datadog": {"source": "DataDog/datadog", "version": ">= 3.60"}}}}


def files(resources: Sequence[Resource], ids: Mapping[str, str | int]) -> dict[str, str]:
    """Return the text of each file by its name: one for each kind, the provider, and the imports if there are any."""
    found = {"versions.tf.json": _text(_PROVIDER)}
    for kind, type_name in _TYPES.items():
        of_kind = {_label(one.key): _ATTRIBUTES[kind](_plain(one.body)) for one in resources if one.kind == kind}
        if of_kind:
            found[f"{kind}.tf.json"] = _text({"resource": {type_name: of_kind}})
    imports = [
        {"to": f"{_TYPES[one.kind]}.{_label(one.key)}", "id": _imported_by(one, ids[f"{one.kind}:{one.key}"])}
        for one in resources
        if f"{one.kind}:{one.key}" in ids
    ]
    if imports:
        found["import.tf.json"] = _text({"import": imports})
    return found


def _imported_by(one: Resource, id_: str | int) -> str:
    """Return by what the provider finds what is there: a service entry by its name, all else by its id."""
    return f"service:default/{one.body['metadata']['name']}" if one.kind == SERVICE else str(id_)


def _text(value: Json) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _label(key: str) -> str:
    """Return the name of a resource: letters that Terraform takes, and a mark of the key, which has others too."""
    plain = re.sub(r"[^a-z0-9]+", "_", key.lower()).strip("_")
    return f"r_{plain}_{sha256(key.encode()).hexdigest()[:8]}"


def _plain(value: Any) -> Any:
    """Return a body without what Terraform would read as its own, and references as it has them."""
    if isinstance(value, str):
        escaped = value.replace("${", "$${").replace("%{", "%%{")
        return REFERENCE.sub(lambda found: f"${{{_TYPES[found[1]]}.{_label(found[2])}.id}}", escaped)
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, list) else value


def _dashboard(body: Json) -> Json:
    return {"dashboard": json.dumps(body, sort_keys=True, ensure_ascii=False)}


def _monitor(body: Json) -> Json:
    return {"monitor": json.dumps(body, sort_keys=True, ensure_ascii=False)}


def _slo(body: Json) -> Json:
    found = dict(body)
    if specification := found.pop("sli_specification", None):
        condition = dict(specification["time_slice"])
        query = condition.pop("query")
        formulas = [{"formula_expression": one["formula"]} for one in query["formulas"]]
        queries = [{"metric_query": one} for one in query["queries"]]
        condition["query"] = {"formula": formulas, "query": queries}
        found["sli_specification"] = {"time_slice": condition}
    return found


def _service(body: Json) -> Json:
    # What is JSON is YAML too.
    return {"entity": json.dumps(body, sort_keys=True, ensure_ascii=False)}


def _retention_filter(body: Json) -> Json:
    # The provider has rates as texts.
    return {**body, "rate": str(body["rate"])}


def _pipeline(body: Json) -> Json:
    processors = [
        {one["type"].replace("-", "_"): {key: value for key, value in one.items() if key != "type"}}
        for one in body["processors"]
    ]
    return {**{key: value for key, value in body.items() if key != "processors"}, "processor": processors}


_ATTRIBUTES: dict[str, Callable[[Json], Json]] = {
    DASHBOARD: _dashboard,
    MONITOR: _monitor,
    SLO: _slo,
    SERVICE: _service,
    PIPELINE: _pipeline,
    RETENTION_FILTER: _retention_filter,
}
