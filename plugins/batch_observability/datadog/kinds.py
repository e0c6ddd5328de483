"""
Each kind of resource at Datadog's API: how it is listed, made, changed and removed, and what is its body in the answer.

Lists are read whole, in pages as large as the API allows, filtered by our tag where it can: a thousand monitors are one
request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

from batch_observability.datadog.connection import NOT_FOUND, Api, RefusedError
from batch_observability.datadog.marks import key_of
from batch_observability.datadog.resource import (
    DASHBOARD,
    KEY_TAG,
    MANAGED_BY,
    MONITOR,
    PIPELINE,
    RETENTION_FILTER,
    SERVICE,
    SLO,
)

Json = dict[str, Any]
Id = str | int

# The most that the API gives in one answer. Of dashboards and services it says no most: these are its defaults.
_MONITORS, _SLOS, _DASHBOARDS, _SERVICES = 1000, 1000, 100, 100


@dataclass(frozen=True)
class Found:
    """
    What is in Datadog.

    Attributes:
        kind: one of `KINDS`.
        key: of ours; "" for what is not ours and may be in the way: services and retention filters.
        id: Datadog's.
        body: as the API tells it.
        since: when it was made, in words that sort.
    """

    kind: str
    key: str
    id: Id
    body: Json
    since: str = ""

    @property
    def title(self) -> str:
        """Return what people call it."""
        return title_of(self.kind, self.body)


def title_of(kind: str, body: Json) -> str:
    """Return what people call a thing."""
    named = body.get("metadata") or {} if kind == SERVICE else body
    return str(named.get("title") or named.get("displayName") or named.get("name") or "")


class Kind(ABC):
    """One kind of resource at the API."""

    name: ClassVar[str]
    group: ClassVar[str]

    @abstractmethod
    def listed(self, api: Api, key: str = "") -> Iterator[Found]:
        """Yield what there is of ours; with a key, at least what has this one."""

    @abstractmethod
    def make(self, api: Api, body: Json) -> Found:
        """Make one; it must not happen twice."""

    @abstractmethod
    def change(self, api: Api, id_: Id, body: Json) -> Json:
        """Give one another body; return what Datadog made of it."""

    @abstractmethod
    def _remove(self, api: Api, id_: Id) -> None: ...

    def remove(self, api: Api, id_: Id) -> None:
        """Remove one; one that is gone already is no mistake."""
        try:
            self._remove(api, id_)
        except RefusedError as error:
            if error.status != NOT_FOUND:
                raise

    def found(self, body: Json, id_: Id, since: object = "") -> Found:
        """Return what is in an answer."""
        return Found(self.name, key_of(self.name, body), id_, body, str(since or ""))

    def ours(self, several: Iterator[Found], key: str) -> Iterator[Found]:
        """Yield those that have our mark, with a key only those that have this one."""
        return (one for one in several if one.key and one.key == (key or one.key))


def _pages(read: Callable[[int], list[Json]], size: int) -> Iterator[Json]:
    """Yield from pages until one is not full."""
    for number in count():
        page = read(number)
        yield from page
        if len(page) < size:
            return


class _Monitors(Kind):
    name, group = MONITOR, "v1.api.monitors_api:MonitorsApi"

    def listed(self, api: Api, key: str = "") -> Iterator[Found]:
        tag = f"{KEY_TAG}:{key}" if key else MANAGED_BY

        def read(number: int) -> list[Json]:
            asked = {"monitor_tags": tag, "page": number, "page_size": _MONITORS}
            return list(api.repeatable(self.group, "list_monitors", **asked))

        return self.ours((self._of(one) for one in _pages(read, _MONITORS)), key)

    def _of(self, body: Json) -> Found:
        return self.found(body, int(body["id"]), body.get("created"))

    def make(self, api: Api, body: Json) -> Found:
        return self._of(api.once(self.group, "create_monitor", body=body))

    def change(self, api: Api, id_: Id, body: Json) -> Json:
        return dict(api.repeatable(self.group, "update_monitor", monitor_id=id_, body=body))

    def _remove(self, api: Api, id_: Id) -> None:
        # Without force: what somebody else's composite or SLO looks at stays, and Datadog says so.
        api.repeatable(self.group, "delete_monitor", monitor_id=id_)


class _Slos(Kind):
    name, group = SLO, "v1.api.service_level_objectives_api:ServiceLevelObjectivesApi"

    def listed(self, api: Api, key: str = "") -> Iterator[Found]:
        tag = f"{KEY_TAG}:{key}" if key else MANAGED_BY

        def read(number: int) -> list[Json]:
            asked = {"tags_query": tag, "limit": _SLOS, "offset": number * _SLOS}
            return list(api.repeatable(self.group, "list_slos", **asked)["data"])

        return self.ours((self._of(one) for one in _pages(read, _SLOS)), key)

    def _of(self, body: Json) -> Found:
        return self.found(body, body["id"], f"{body.get('created_at', 0):020}")

    def make(self, api: Api, body: Json) -> Found:
        return self._of(api.once(self.group, "create_slo", body=body)["data"][0])

    def change(self, api: Api, id_: Id, body: Json) -> Json:
        return dict(api.repeatable(self.group, "update_slo", slo_id=id_, body=body)["data"][0])

    def _remove(self, api: Api, id_: Id) -> None:
        api.repeatable(self.group, "delete_slo", slo_id=id_)


class _Dashboards(Kind):
    name, group = DASHBOARD, "v1.api.dashboards_api:DashboardsApi"

    def listed(self, api: Api, key: str = "") -> Iterator[Found]:
        def read(number: int) -> list[Json]:
            asked = {"count": _DASHBOARDS, "start": number * _DASHBOARDS}
            return list(api.repeatable(self.group, "list_dashboards", **asked)["dashboards"])

        for summary in _pages(read, _DASHBOARDS):
            if (marked := key_of(self.name, summary)) and marked == (key or marked):
                yield self._of(api.repeatable(self.group, "get_dashboard", dashboard_id=summary["id"]))

    def _of(self, body: Json) -> Found:
        return self.found(body, body["id"], body.get("created_at"))

    def make(self, api: Api, body: Json) -> Found:
        return self._of(api.once(self.group, "create_dashboard", body=body))

    def change(self, api: Api, id_: Id, body: Json) -> Json:
        return dict(api.repeatable(self.group, "update_dashboard", dashboard_id=id_, body=body))

    def _remove(self, api: Api, id_: Id) -> None:
        api.repeatable(self.group, "delete_dashboard", dashboard_id=id_)


class _Pipelines(Kind):
    name, group = PIPELINE, "v1.api.logs_pipelines_api:LogsPipelinesApi"

    def listed(self, api: Api, key: str = "") -> Iterator[Found]:
        found = api.repeatable(self.group, "list_logs_pipelines")
        return self.ours((self.found(one, one["id"]) for one in found), key)

    def make(self, api: Api, body: Json) -> Found:
        made = api.once(self.group, "create_logs_pipeline", body=body)
        return self.found(made, made["id"])

    def change(self, api: Api, id_: Id, body: Json) -> Json:
        return dict(api.repeatable(self.group, "update_logs_pipeline", pipeline_id=id_, body=body))

    def _remove(self, api: Api, id_: Id) -> None:
        api.repeatable(self.group, "delete_logs_pipeline", pipeline_id=id_)


class _RetentionFilters(Kind):
    name, group = RETENTION_FILTER, "v2.api.apm_retention_filters_api:APMRetentionFiltersApi"
    _TYPE = "apm_retention_filter"

    def listed(self, api: Api, key: str = "") -> Iterator[Found]:
        """Yield all filters: those of others that come before ours decide first what is kept."""
        found = api.repeatable(self.group, "list_apm_retention_filters")
        return (one for one in map(self._of, found["data"]) if one.key == (key or one.key))

    def _of(self, data: Json) -> Found:
        body = data["attributes"]
        return self.found(body, data["id"], f"{body.get('created_at', 0):020}")

    def make(self, api: Api, body: Json) -> Found:
        sent = {"data": {"type": self._TYPE, "attributes": body}}
        return self._of(api.once(self.group, "create_apm_retention_filter", body=sent)["data"])

    def change(self, api: Api, id_: Id, body: Json) -> Json:
        sent = {"data": {"type": self._TYPE, "id": id_, "attributes": body}}
        answer = api.repeatable(self.group, "update_apm_retention_filter", filter_id=id_, body=sent)
        return dict(answer["data"]["attributes"])

    def _remove(self, api: Api, id_: Id) -> None:
        api.repeatable(self.group, "delete_apm_retention_filter", filter_id=id_)


class _Services(Kind):
    """Entries of the Software Catalog: what is sent under a name replaces what is there, so it may happen twice."""

    name, group = SERVICE, "v2.api.software_catalog_api:SoftwareCatalogApi"

    def listed(self, api: Api, key: str = "") -> Iterator[Found]:
        """Yield all entries that somebody has declared: one of the same name that is not ours is in the way."""
        schemas: dict[str, Json] = {}

        def read(number: int) -> list[Json]:
            asked = {"filter_kind": "service", "include": "schema"}
            asked |= {"page_limit": str(_SERVICES), "page_offset": str(number * _SERVICES)}
            answer = api.repeatable(self.group, "list_catalog_entity", **asked)
            for one in answer.get("included") or ():
                schemas[str(one["id"])] = (one.get("attributes") or {}).get("schema") or {}
            return list(answer["data"])

        for data in _pages(read, _SERVICES):
            found = self._of(data, schemas)
            if found.key == (key or found.key):
                yield found

    def _of(self, data: Json, schemas: dict[str, Json]) -> Found:
        related = ((data.get("relationships") or {}).get("schema") or {}).get("data") or {}
        body = schemas.get(str(related.get("id"))) or {"metadata": data.get("attributes") or {}}
        return self.found(body, data["id"], (data.get("meta") or {}).get("createdAt"))

    def make(self, api: Api, body: Json) -> Found:
        answer = api.repeatable(self.group, "upsert_catalog_entity", body=body)
        schemas = {str(one["id"]): one["attributes"]["schema"] for one in answer.get("included") or ()}
        return self._of(answer["data"][0], schemas)

    def change(self, api: Api, id_: Id, body: Json) -> Json:  # noqa: ARG002  (the name in it says which)
        return self.make(api, body).body

    def _remove(self, api: Api, id_: Id) -> None:
        api.repeatable(self.group, "delete_catalog_entity", entity_id=id_)


AT: dict[str, Kind] = {
    kind.name: kind for kind in (_Pipelines(), _RetentionFilters(), _Dashboards(), _Monitors(), _Slos(), _Services())
}
