"""
What a Datadog keeps of each kind, and how it tells it: with ids, times, defaults and authors added, numbers as floats,
tags in another order, blank ends cut. What `batchobs datadog plan` must not call a change.
"""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

CREATED = "2026-09-01T06:30:00.000000+00:00"
CREATED_S = 1788244200
AUTHOR = {"email": "ci@example.com", "handle": "ci@example.com", "name": "CI"}


class Answer(NamedTuple):
    """What the server says."""

    status: int
    body: Any = None
    headers: dict[str, str] = {}  # noqa: RUF012  (never changed)


class AnswerError(Exception):
    """The request is answered with a mistake."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(status, {"errors": [text]})


@dataclass
class Organization:
    """All that is kept, each kind by id."""

    monitors: dict[int, dict] = field(default_factory=dict)
    slos: dict[str, dict] = field(default_factory=dict)
    dashboards: dict[str, dict] = field(default_factory=dict)
    pipelines: dict[str, dict] = field(default_factory=dict)
    filters: dict[str, dict] = field(default_factory=dict)
    services: dict[str, dict] = field(default_factory=dict)
    made: int = 0

    def number(self) -> int:
        """Return a number that no other has."""
        self.made += 1
        return self.made

    def identity(self) -> str:
        return str(uuid.UUID(int=self.number()))

    def state(self) -> dict[str, list]:
        """Return what is there, without what depends on the order in which it was made."""
        titles = {str(id_): f"<{one['name']}>" for id_, one in self.monitors.items()}
        titles |= {id_: f"<{one['title']}>" for id_, one in self.dashboards.items()}
        titles |= {id_: "<id>" for kept in (self.slos, self.pipelines, self.filters, self.services) for id_ in kept}

        def plain(value: Any, name: str = "") -> Any:
            if isinstance(value, dict):
                return {key: plain(one, key) for key, one in value.items()}
            if isinstance(value, list):
                return [plain(one) for one in value]
            if name == "id":
                return "<id>"
            known = re.compile("|".join(rf"(?<!\w){re.escape(id_)}(?!\w)" for id_ in titles) or "(?!)")
            return known.sub(lambda found: titles[found[0]], value) if isinstance(value, str) else value

        return {
            name: sorted((plain(one) for one in kept.values()), key=repr)
            for name, kept in vars(self).items()
            if isinstance(kept, dict)
        }


def kept(of: dict, id_: Any) -> dict:
    if id_ not in of:
        raise AnswerError(404, "Not found")
    return of[id_]


def page(several: list, offset: int, limit: int) -> list:
    return several[offset : offset + limit]


def floats(value: Any) -> Any:
    """Return thresholds as Datadog tells them."""
    return {key: float(one) for key, one in value.items()}


# --- Monitors ----------------------------------------------------------------------------------------------------


def monitors(of: Organization, method: str, query: dict, body: Any, id_: str = "") -> Answer:
    if method == "GET":
        wanted = {one for one in query.get("monitor_tags", "").split(",") if one}
        found = [one for one in of.monitors.values() if wanted <= set(one["tags"])]
        size = int(query.get("page_size", 100))
        return Answer(200, page(found, int(query["page"]) * size, size) if "page" in query else found)
    if method == "POST":
        number = 10_000 + of.number()
        of.monitors[number] = {**_monitor(of, body), "id": number, "created": CREATED}
        return Answer(200, of.monitors[number])
    before = kept(of.monitors, int(id_))
    if method == "PUT":
        if {before["type"], body["type"]} - {"metric alert", "query alert"} and before["type"] != body["type"]:
            raise AnswerError(400, "Monitor type cannot be changed")
        of.monitors[int(id_)] = {**before, **_monitor(of, body)}
        return Answer(200, of.monitors[int(id_)])
    used = [one["name"] for one in of.monitors.values() if one["type"] == "composite" and id_ in one["query"].split()]
    if used and query.get("force") != "true":
        raise AnswerError(400, f"monitor [{id_},{before['name']}] is referenced in composite monitors: {used}")
    del of.monitors[int(id_)]
    return Answer(200, {"deleted_monitor_id": int(id_)})


def _monitor(of: Organization, body: dict) -> dict:
    found = copy.deepcopy(body)
    if body["type"] == "composite":
        parts = re.findall(r"\d+", body["query"])
        if not 1 <= len(parts) <= 10 or not re.fullmatch(r"\d+( \|\| \d+)*", body["query"]):
            raise AnswerError(400, "The value provided for parameter 'query' is invalid")
        for part in parts:
            if int(part) not in of.monitors:
                raise AnswerError(400, f"monitor {part} does not exist")
    elif not re.fullmatch(r"(sum|avg|min|max)\(last_\d+[mhd]\):.+ (>=|>|<=|<) [\d.]+", body["query"]):
        raise AnswerError(400, "The value provided for parameter 'query' is invalid")
    elif " by {" not in body["query"]:
        found["type"] = "metric alert"
    options = found.setdefault("options", {})
    if "thresholds" in options:
        options["thresholds"] = floats(options["thresholds"])
    if options.get("on_missing_data") == "default":
        del options["on_missing_data"]
    found["options"] = {"notify_audit": False, "silenced": {}, "new_host_delay": 300, "locked": False, **options}
    return {
        **found,
        "message": found["message"].strip(),
        "tags": sorted(found["tags"]),
        "creator": AUTHOR,
        "modified": CREATED,
        "deleted": None,
        "multi": " by {" in body["query"],
        "overall_state": "No Data",
        "restricted_roles": None,
        "matching_downtimes": [],
    }


# --- SLOs --------------------------------------------------------------------------------------------------------


def slos(of: Organization, method: str, query: dict, body: Any, id_: str = "") -> Answer:
    if method == "GET":
        tag = query.get("tags_query")
        found = [one for one in of.slos.values() if not tag or tag in one["tags"]]
        data = page(found, int(query.get("offset", 0)), int(query.get("limit", 1000)))
        return Answer(200, {"data": data, "errors": [], "metadata": {"page": {"total_filtered_count": len(found)}}})
    if method == "POST":
        id_ = of.identity().replace("-", "")
        of.slos[id_] = {**_slo(body), "id": id_, "created_at": CREATED_S, "creator": AUTHOR}
    before = kept(of.slos, id_)
    if method == "DELETE":
        del of.slos[id_]
        return Answer(200, {"data": [id_], "errors": {}})
    if method == "PUT":
        of.slos[id_] = {**before, **_slo(body)}
    return Answer(200, {"data": [of.slos[id_]], "errors": []})


def _slo(body: dict) -> dict:
    found = copy.deepcopy(body)
    for one in found["thresholds"]:
        if not one["target"] < one.get("warning", 100) <= 100 or one["target"] >= 100:
            raise AnswerError(400, "Invalid payload: warning must be greater than target")
        one |= {"target": float(one["target"]), "target_display": f"{one['target']:g}"}
    found["thresholds"].sort(key=lambda one: int(one["timeframe"][:-1]), reverse=True)
    first = found["thresholds"][0]
    return {
        **found,
        "tags": sorted(found["tags"]),
        "modified_at": CREATED_S,
        "timeframe": first["timeframe"],
        "target_threshold": first["target"],
        "monitor_tags": [],
    }


# --- Dashboards --------------------------------------------------------------------------------------------------


def dashboards(of: Organization, method: str, query: dict, body: Any, id_: str = "") -> Answer:
    if method == "GET" and not id_:
        fields = ("author_handle", "created_at", "description", "id", "is_read_only", "layout_type", "modified_at")
        found = [{name: one[name] for name in (*fields, "title", "url")} for one in of.dashboards.values()]
        return Answer(200, {"dashboards": page(found, int(query.get("start", 0)), int(query.get("count", 100)))})
    if method == "POST":
        id_ = "-".join(f"{of.number():03d}" for _ in range(3))
        of.dashboards[id_] = {**_dashboard(of, body), "id": id_, "created_at": CREATED, "url": f"/dashboard/{id_}/x"}
    before = kept(of.dashboards, id_)
    if method == "DELETE":
        del of.dashboards[id_]
        return Answer(200, {"deleted_dashboard_id": id_})
    if method == "PUT":
        of.dashboards[id_] = {**before, **_dashboard(of, body)}
    return Answer(200, of.dashboards[id_])


def _dashboard(of: Organization, body: dict) -> dict:
    def numbered(widgets: list[dict]) -> list[dict]:
        for one in widgets:
            one["id"] = of.number()
            if "widgets" in one["definition"]:
                numbered(one["definition"]["widgets"])
        return widgets

    found = copy.deepcopy(body)
    return {
        **found,
        "widgets": numbered(found["widgets"]),
        "author_handle": AUTHOR["handle"],
        "author_name": None,
        "is_read_only": False,
        "modified_at": CREATED,
        "notify_list": None,
        "restricted_roles": [],
        "template_variable_presets": None,
    }


# --- Log pipelines and retention filters -------------------------------------------------------------------------


def pipelines(of: Organization, method: str, query: dict, body: Any, id_: str = "") -> Answer:
    if method == "GET" and not id_:
        return Answer(200, list(of.pipelines.values()))
    if method == "POST":
        id_ = f"p{of.number():021}"
        of.pipelines[id_] = {"id": id_, "type": "pipeline", "is_read_only": False}
    before = kept(of.pipelines, id_)
    if method == "DELETE":
        del of.pipelines[id_]
        return Answer(200)
    if method in ("POST", "PUT"):
        of.pipelines[id_] = {**before, **copy.deepcopy(body)}
    return Answer(200, of.pipelines[id_])


def filters(of: Organization, method: str, query: dict, body: Any, id_: str = "") -> Answer:
    if method == "GET" and not id_:
        return Answer(200, {"data": list(of.filters.values())})
    if method == "POST":
        id_ = of.identity()
        order = len(of.filters) + 1
        of.filters[id_] = {
            "id": id_,
            "type": "apm_retention_filter",
            "attributes": {"created_at": CREATED_S, "created_by": AUTHOR["name"], "execution_order": order},
        }
    before = kept(of.filters, id_)
    if method == "DELETE":
        del of.filters[id_]
        return Answer(200)
    if method in ("POST", "PUT"):
        given = copy.deepcopy(body["data"]["attributes"])
        given |= {"editable": True, "modified_at": CREATED_S, "modified_by": AUTHOR["name"], "trace_rate": 0.0}
        of.filters[id_] = {**before, "attributes": {**before["attributes"], **given}}
    return Answer(200, {"data": of.filters[id_]})


# --- Service entries ---------------------------------------------------------------------------------------------


def services(of: Organization, method: str, query: dict, body: Any, id_: str = "") -> Answer:
    if method == "GET":
        found = list(of.services.items())
        found = page(found, int(query.get("page[offset]", 0)), int(query.get("page[limit]", 100)))
        return Answer(200, {**_entities(found), "meta": {"count": len(of.services), "includeCount": len(found)}})
    if method == "POST":
        named = _reference(body["metadata"])
        same = (id_ for id_, one in of.services.items() if _reference(one["metadata"]) == named)
        id_ = next(same, None) or of.identity()
        entry = copy.deepcopy(body)
        entry["metadata"] |= {"id": id_, "namespace": "default", "managed": {}}
        of.services[id_] = entry
        return Answer(202, {**_entities([(id_, entry)]), "meta": {"count": 1}})
    kept(of.services, id_)
    del of.services[id_]
    return Answer(204)


def _reference(metadata: dict) -> tuple[str, str]:
    return metadata["name"], metadata.get("namespace", "default")


def _entities(several: list[tuple[str, dict]]) -> dict:
    data, included = [], []
    for id_, entry in several:
        metadata = entry["metadata"]
        known = {"displayName", "name", "namespace", "owner", "tags", "description"} & set(metadata)
        data.append(
            {
                "id": id_,
                "type": "entity",
                "attributes": {"apiVersion": "v3", "kind": "service", **{name: metadata[name] for name in known}},
                "meta": {"createdAt": CREATED, "modifiedAt": CREATED, "ingestionSource": "api", "origin": "unknown"},
                "relationships": {"schema": {"data": {"id": f"s-{id_}", "type": "schema"}}},
            }
        )
        included.append({"id": f"s-{id_}", "type": "schema", "attributes": {"schema": entry}})
    return {"data": data, "included": included}


STORES: dict[str, Callable[..., Answer]] = {
    path: store
    for prefix, placeholder, store in (
        ("/api/v1/monitor", "monitor_id", monitors),
        ("/api/v1/slo", "slo_id", slos),
        ("/api/v1/dashboard", "dashboard_id", dashboards),
        ("/api/v1/logs/config/pipelines", "pipeline_id", pipelines),
        ("/api/v2/apm/config/retention-filters", "filter_id", filters),
        ("/api/v2/catalog/entity", "entity_id", services),
    )
    for path in (prefix, f"{prefix}/{{{placeholder}}}")
}
