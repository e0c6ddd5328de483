"""Dashboards answer the questions that docs/dashboards.md asks, and are laid out so that they can be read."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from batch_observability.datadog.engineering import engineering
from batch_observability.datadog.leadership import leadership

PAGE = (Path(__file__).parents[2] / "docs" / "dashboards.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(r"^\| (.+[?.]) \| (leadership|engineering) \| (.+) \|$", PAGE, re.MULTILINE)
BOARDS = {"leadership": leadership().body, "engineering": engineering().body}
GROUPS = [(name, group) for name, board in BOARDS.items() for group in board["widgets"]]


def widgets(board: str) -> dict[str, dict]:
    found = [one["definition"] for group in BOARDS[board]["widgets"] for one in group["definition"]["widgets"]]
    return {one["title"]: one for one in found if "title" in one}


@pytest.mark.parametrize("board", BOARDS)
def test_ten_questions_are_asked_of_each_dashboard(board):
    asked = [one for one in QUESTIONS if one[1] == board]
    assert len(asked) >= 10
    assert len({question for question, _, _ in asked}) == len({widget for *_, widget in asked}) == len(asked)


@pytest.mark.parametrize(("question", "board", "title"), QUESTIONS)
def test_a_question_has_its_widget_and_query(question, board, title):
    widget = widgets(board)[title]
    if widget["type"] == "manage_status":
        assert widget["query"]
    for request in widget.get("requests", []):
        query = request["query"]["query_string"] if "query" in request else request["queries"]
        assert query
    assert widget.get("requests") or widget.get("query")


@pytest.mark.parametrize("board", BOARDS)
def test_titles_are_read_once(board):
    found = [
        one["definition"].get("title") for group in BOARDS[board]["widgets"] for one in group["definition"]["widgets"]
    ]
    titled = [title for title in found if title]
    assert len(set(titled)) == len(titled)
    assert all(len(title) <= 60 for title in titled)


@pytest.mark.parametrize("board", BOARDS)
def test_a_dashboard_says_what_to_do(board):
    assert [one for _, group in GROUPS for one in group["definition"]["widgets"] if one["definition"]["type"] == "note"]
    assert any(
        one["definition"]["type"] == "note"
        for group in BOARDS[board]["widgets"]
        for one in group["definition"]["widgets"]
    )


def overlap(one: dict, other: dict) -> bool:
    return (
        one["x"] < other["x"] + other["width"]
        and other["x"] < one["x"] + one["width"]
        and one["y"] < other["y"] + other["height"]
        and other["y"] < one["y"] + one["height"]
    )


@pytest.mark.parametrize("board", BOARDS)
def test_groups_are_below_each_other(board):
    layouts = [group["layout"] for group in BOARDS[board]["widgets"]]
    assert {(one["x"], one["width"]) for one in layouts} == {(0, 12)}
    assert not [pair for pair in combinations(layouts, 2) if overlap(*pair)]


@pytest.mark.parametrize(("board", "group"), GROUPS, ids=[group["definition"]["title"] for _, group in GROUPS])
def test_widgets_of_a_group_fill_its_rows_and_do_not_overlap(board, group):
    layouts = [one["layout"] for one in group["definition"]["widgets"]]
    assert not [pair for pair in combinations(layouts, 2) if overlap(*pair)]
    assert all(one["x"] >= 0 and one["x"] + one["width"] <= 12 for one in layouts)
    area = sum(one["width"] * one["height"] for one in layouts)
    bottom = max(one["y"] + one["height"] for one in layouts)
    assert area == 12 * bottom
    # The title of the group takes a row.
    assert group["layout"]["height"] == bottom + 1


@pytest.mark.parametrize("board", BOARDS)
def test_a_dashboard_narrows_by_its_variables(board):
    body = BOARDS[board]
    names = [one["name"] for one in body["template_variables"]]
    assert names == ["env", "service", "owner", "tier", "model", "source"]
    assert (body["layout_type"], body["reflow_type"]) == ("ordered", "fixed")
    assert body["default_timeframe"]["value"] == {"leadership": 30, "engineering": 7}[board]
    metrics = re.findall(r"\w+:batch_model\.[\w.]+\{[^}]*\}", json.dumps(body))
    assert metrics
    narrowed = [one for one in metrics if "telemetry.dropped" not in one]
    assert all(f"${name}" in one for one in narrowed for name in names)
