"""The judge of requests and answers has something against what the description does not have."""

from __future__ import annotations

import copy

import pytest

from tests.datadog import description, reduce
from tests.datadog.conftest import resources

BODIES = {one.kind: one.body for one in reversed(resources())}
PATHS = {
    "monitor": "/api/v1/monitor",
    "dashboard": "/api/v1/dashboard",
    "slo": "/api/v1/slo",
    "pipeline": "/api/v1/logs/config/pipelines",
    "service": "/api/v2/catalog/entity",
}


def wrong(kind: str, body: dict, **query):
    return description.wrong_request(description.operation("POST", PATHS[kind]), query, body)


@pytest.mark.parametrize("kind", PATHS)
def test_what_is_rendered_is_as_described(kind):
    assert list(wrong(kind, BODIES[kind])) == []


@pytest.mark.parametrize(
    ("kind", "path", "value", "said"),
    [
        ("dashboard", ("widgets", 0, "definition", "widgets", 0, "definition", "type"), "query_number", "query_number"),
        (
            "dashboard",
            ("widgets", 0, "definition", "widgets", 0, "definition", "colour"),
            "red",
            "colour is not described",
        ),
        ("dashboard", ("widgets", 0, "layout", "x"), -1, "-1 is not from 0"),
        ("dashboard", ("layout_type",), None, "None"),
        ("dashboard", ("tags",), ["team:a"] * 6, "6 is not from 0 to 5"),
        ("dashboard", ("author_handle",), "me", "author_handle"),
        ("monitor", ("type",), "batch alert", "batch alert"),
        ("monitor", ("options", "on_missing"), "default", "on_missing"),
        ("monitor", ("priority",), "1", "'1'"),
        ("slo", ("thresholds", 0, "timeframe"), "14d", "14d"),
        ("slo", ("thresholds", 0, "target"), "99", "'99'"),
        ("pipeline", ("processors", 0, "type"), "time-remapper", "time-remapper"),
        ("pipeline", ("id",), "x", "id"),
        ("service", ("metadata", "team"), "risk", ""),
        ("service", ("apiVersion",), "v9", ""),
    ],
)
def test_what_is_not_described_is_found(kind, path, value, said):
    body = copy.deepcopy(BODIES[kind])
    target = body
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    found = wrong(kind, body)
    assert found
    assert said in " ".join(found)


def test_requests_are_judged_by_path_parameters_and_body():
    assert description.operation("GET", "/api/v1/monitors") is None
    assert description.operation("PATCH", "/api/v1/monitor") is None
    assert description.operation("GET", "/elsewhere") is None
    listed = description.operation("GET", "/api/v1/monitor")
    assert description.wrong_request(listed, {"page": "0", "page_size": "1000"}, None) == []
    assert description.wrong_request(listed, {"page": "x"}, None) == ["parameter page is 'x'"]
    assert description.wrong_request(listed, {"page_size": "1001"}, None) == ["parameter page_size is '1001'"]
    assert description.wrong_request(listed, {"size": "1"}, None) == ["parameter 'size' is not described"]
    assert description.wrong_request(listed, {}, {"a": 1}) == ["a body is not described"]
    assert description.wrong_request(description.operation("POST", "/api/v1/slo"), {}, None) == ["a body is missing"]
    one = description.operation("DELETE", "/api/v1/monitor/abc")
    assert description.wrong_request(one, {}, None) == ["parameter monitor_id is 'abc'"]


def test_answers_are_judged_too():
    one = description.operation("DELETE", "/api/v1/monitor/7")
    assert list(description.wrong_answer(one, 200, {"deleted_monitor_id": 7})) == []
    assert list(description.wrong_answer(one, 200, {"deleted": 7}))
    assert list(description.wrong_answer(one, 201, {"deleted_monitor_id": 7})) == ["answer 201 is not described"]
    gone = description.operation("DELETE", "/api/v2/catalog/entity/x")
    assert list(description.wrong_answer(gone, 204, {"a": 1})) == ["a body of the answer is not described"]


def test_all_that_the_description_says_of_values_is_judged():
    def keywords(schema):
        yield from schema
        for one in schema.get("properties", {}).values():
            yield from keywords(one)
        for one in (schema.get("items"), schema.get("additionalProperties"), *schema.get("oneOf", ())):
            yield from keywords(one) if isinstance(one, dict) else ()

    found = {
        name
        for version in ("v1", "v2")
        for schema in description.described(version)["schemas"].values()
        for name in keywords(schema)
    }
    assert found <= description.KEYWORDS


def test_the_reduced_description_has_what_its_paths_refer_to_and_nothing_else():
    for version in ("v1", "v2"):
        kept = description.described(version)
        assert kept["license"].startswith("Apache-2.0")
        needed, waiting = set(), set(reduce.references(kept["paths"]))
        while waiting:
            one = waiting.pop()
            needed.add(one)
            section, name = one.split("/")[2:]
            waiting |= set(reduce.references(kept[section][name])) - needed
        sections = set(kept) - {"source", "license", "changes", "paths"}
        assert needed == {f"#/components/{section}/{name}" for section in sections for name in kept[section]}
