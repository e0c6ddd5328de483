"""What Datadog writes in another way is no change; what is another value is one, and is told with its place."""

from __future__ import annotations

import pytest

from batch_observability.datadog.compare import MISSING, Difference, differences
from batch_observability.datadog.kinds import Found
from batch_observability.datadog.plan import Existing, as_json, planned
from batch_observability.datadog.resource import MONITOR, made


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"name": "a"}, {"name": "a", "id": 1, "creator": {"name": "x"}}),
        ({"a": {"b": [{"c": 1}]}}, {"a": {"b": [{"c": 1.0, "id": 5}], "x": None}}),
        ({"target": 99.9995}, {"target": 99.99950000000001}),
        ({"message": "one\ntwo\n"}, {"message": "one\r\ntwo"}),
        ({"tags": ["b:2", "a:1"]}, {"tags": ["a:1", "b:2"]}),
        ({"tags": ["Team:A"]}, {"tags": ["team:a"]}),
        ({"type": "query alert"}, {"type": "metric alert"}),
        (
            {"thresholds": [{"timeframe": "7d", "target": 99}, {"timeframe": "30d", "target": 99}]},
            {"thresholds": [{"timeframe": "30d", "target": 99.0}, {"timeframe": "7d", "target": 99.0}]},
        ),
        ({"options": {"on_missing_data": "default", "include_tags": True}}, {"options": {}}),
        ({"available_values": [], "show_tick": False, "description": ""}, {"available_values": None}),
        ({"a": None}, {}),
    ],
)
def test_what_means_the_same_is_no_difference(wanted, found):
    assert differences(wanted, found) == []


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ({"name": "a"}, {"name": "b"}, Difference("name", "b", "a")),
        ({"a": {"b": [{"c": 1}]}}, {"a": {"b": [{"c": 2}]}}, Difference("a.b[0].c", 2, 1)),
        ({"a": [1, 2]}, {"a": [3, 2]}, Difference("a[0]", 3, 1)),
        ({"a": [1]}, {"a": [1, 2]}, Difference("a", [1, 2], [1])),
        ({"tags": ["a:1"]}, {"tags": ["a:1", "b:2"]}, Difference("tags", ["a:1", "b:2"], ["a:1"])),
        ({"tags": ["a:1"]}, {"tags": ["c:1"]}, Difference("tags", ["c:1"], ["a:1"])),
        ({"a": "x"}, {}, Difference("a", MISSING, "x")),
        ({"a": 0}, {}, Difference("a", MISSING, 0)),
        ({"a": True}, {}, Difference("a", MISSING, True)),
        ({"a": True}, {"a": 1}, Difference("a", 1, True)),
        ({"a": False}, {"a": True}, Difference("a", True, False)),
        ({"a": "1"}, {"a": 1}, Difference("a", 1, "1")),
        ({"a": {"b": 1}}, {"a": None}, Difference("a", None, {"b": 1})),
        ({"type": "composite"}, {"type": "metric alert"}, Difference("type", "metric alert", "composite")),
        ({"on_missing_data": "default"}, {"on_missing_data": "resolve"}, None),
        ({"on_missing_data": "show_no_data"}, {}, None),
    ],
)
def test_another_value_is_a_difference_with_its_place(wanted, found, expected):
    seen = differences(wanted, found)
    assert len(seen) == 1
    assert expected is None or [repr(one) for one in seen] == [repr(expected)]


def test_a_plan_as_json_has_each_field_and_leaves_out_what_is_not_there():
    wanted = made(MONITOR, "monitor/a", {"name": "new", "query": "q", "message": "m"})
    state = Existing({"monitor:monitor/a": Found(MONITOR, "monitor/a", 7, {"name": "old", "query": "q"})})
    assert as_json(planned([wanted], state)) == {
        "changes": [
            {
                "action": "change",
                "kind": "monitor",
                "key": "monitor/a",
                "title": "new",
                "id": 7,
                "fields": [{"path": "name", "before": "old", "after": "new"}, {"path": "message", "after": "m"}],
            }
        ],
        "copies": [],
        "warnings": [],
        "counts": {"create": 0, "change": 1, "remove": 0, "foreign": 0, "keep": 0},
    }
