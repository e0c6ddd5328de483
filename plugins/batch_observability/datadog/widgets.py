"""
Widgets of dashboards, and how they are laid out: in groups of rows on Datadog's grid of twelve columns.

Each widget has one or more queries and formulas over them. Positions are computed from rows, so that none overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batch_observability.datadog.queries import Json
from batch_observability.datadog.resource import DASHBOARD, KEY_TAG, MANAGED_BY, Resource, made

COLUMNS = 12
# Height of a row, and what the title of a group adds to it.
_ROW, _TITLE = 3, 1
_GOOD, _WARNING, _BAD = "white_on_green", "white_on_yellow", "white_on_red"


@dataclass(frozen=True)
class Formula:
    """
    What is shown of the queries of a widget.

    Attributes:
        text: over names of queries.
        alias: what it is called where it is shown.
        unit: Datadog's name of it, "" if it has none.
        formats: colours, for values.
    """

    text: str
    alias: str = ""
    unit: str = ""
    formats: tuple[Json, ...] = ()

    def body(self, limit: int = 0) -> Json:
        """Return it as the API takes it; `limit` keeps the greatest values."""
        found: Json = {"formula": self.text}
        if self.alias:
            found["alias"] = self.alias
        if self.unit:
            found["number_format"] = {"unit": {"type": "canonical_unit", "unit_name": self.unit}}
        if self.formats:
            found["conditional_formats"] = list(self.formats)
        if limit:
            found["limit"] = {"count": limit, "order": "desc"}
        return found


def good_from(good: float, warning: float) -> tuple[Json, ...]:
    """Return colours of a value that is better the greater it is."""
    return (_colour(">=", good, _GOOD), _colour(">=", warning, _WARNING), _colour("<", warning, _BAD))


def good_is_none() -> tuple[Json, ...]:
    """Return colours of a number that should be 0."""
    return (_colour("<=", 0, _GOOD), _colour(">", 0, _BAD))


def _colour(comparator: str, value: float, palette: str) -> Json:
    return {"comparator": comparator, "value": value, "palette": palette}


def _request(queries: Sequence[Json], formulas: Sequence[Json], response_format: str) -> Json:
    return {"response_format": response_format, "queries": list(queries), "formulas": list(formulas)}


def over_time(title: str, queries: Sequence[Json], formulas: Sequence[Formula], display: str = "line") -> Json:
    """Return a graph over time: `line`, `bars` or `area`."""
    request = _request(queries, [one.body() for one in formulas], "timeseries")
    return {
        "type": "timeseries",
        "title": title,
        "show_legend": True,
        "legend_layout": "auto",
        "requests": [{**request, "display_type": display}],
    }


def value(title: str, queries: Sequence[Json], formula: Formula, custom_unit: str = "") -> Json:
    """Return one number."""
    request = _request(queries, [Formula(formula.text, formula.alias, formula.unit).body()], "scalar")
    if formula.formats:
        request["conditional_formats"] = list(formula.formats)
    unit = {"custom_unit": custom_unit} if custom_unit else {}
    return {
        "type": "query_value",
        "title": title,
        "autoscale": True,
        "precision": 1,
        "requests": [request],
        **unit,
    }


def top(title: str, queries: Sequence[Json], formula: Formula, limit: int = 10) -> Json:
    """Return a list of the greatest values."""
    return {
        "type": "toplist",
        "title": title,
        "requests": [_request(queries, [formula.body(limit)], "scalar")],
    }


def table(title: str, queries: Sequence[Json], formulas: Sequence[Formula]) -> Json:
    """Return a table with a column for each formula, ordered by the first one."""
    columns = [one.body(limit=0 if place else 100) for place, one in enumerate(formulas)]
    return {
        "type": "query_table",
        "title": title,
        "has_search_bar": "auto",
        "requests": [_request(queries, columns, "scalar")],
    }


def note(text: str) -> Json:
    """Return a text in Markdown: what to do."""
    return {
        "type": "note",
        "content": text,
        "background_color": "gray",
        "font_size": "14",
        "text_align": "left",
        "vertical_align": "top",
        "has_padding": True,
        "show_tick": False,
        "tick_edge": "left",
        "tick_pos": "50%",
    }


def budgets(title: str) -> Json:
    """Return the list of all SLOs of ours, the least budget first."""
    sort = [{"column": "status.error_budget_remaining", "order": "asc"}]
    query = {"query_string": MANAGED_BY, "limit": 100, "sort": sort}
    return {"type": "slo_list", "title": title, "requests": [{"query": query, "request_type": "slo_list"}]}


def monitors(title: str, query: str) -> Json:
    """Return the state of the monitors that a search finds."""
    return {
        "type": "manage_status",
        "title": title,
        "query": query,
        "summary_type": "monitors",
        "display_format": "countsAndList",
        "color_preference": "text",
        "hide_zero_counts": True,
        "show_last_triggered": True,
        "show_priority": True,
        "sort": "status,asc",
    }


def stream(title: str, source: str, query: str, columns: Sequence[str]) -> Json:
    """Return a list of log records (`logs_stream`) or spans (`trace_stream`)."""
    return {
        "type": "list_stream",
        "title": title,
        "requests": [
            {
                "response_format": "event_list",
                "query": {"data_source": source, "query_string": query, "indexes": []},
                "columns": [{"field": field, "width": "auto"} for field in columns],
            }
        ],
    }


# --- Layout ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Rows of widgets below one title, each with its columns; a row is `rows_high` rows of the grid times its place."""

    title: str
    colour: str
    rows: tuple[tuple[tuple[Json, int], ...], ...]
    height: int = _ROW


def dashboard(
    key: str, title: str, about: str, groups: Sequence[Group], variables: Sequence[Json], *, days: int
) -> Resource:
    """Return a dashboard of groups, one below the other, that opens with the last days: batch runs are rare."""
    widgets, y = [], 0
    for group in groups:
        widgets.append(_grouped(group, y))
        y += widgets[-1]["layout"]["height"]
    body = {
        "title": title,
        "description": f"{about}\n\nMade from batch_models.yaml: change that, not this page.\n"
        f"{MANAGED_BY} {KEY_TAG}:{key}",
        "layout_type": "ordered",
        "reflow_type": "fixed",
        "default_timeframe": {"type": "live", "unit": "day", "value": days},
        "template_variables": list(variables),
        "widgets": widgets,
    }
    return made(DASHBOARD, key, body)


def _grouped(group: Group, y: int) -> Json:
    placed = []
    for row, widgets in enumerate(group.rows):
        x = 0
        for definition, width in widgets:
            layout = {"x": x, "y": row * group.height, "width": width, "height": group.height}
            placed.append({"definition": definition, "layout": layout})
            x += width
    height = len(group.rows) * group.height + _TITLE
    return {
        "definition": {
            "type": "group",
            "layout_type": "ordered",
            "title": group.title,
            "show_title": True,
            "background_color": group.colour,
            "widgets": placed,
        },
        "layout": {"x": 0, "y": y, "width": COLUMNS, "height": height},
    }


def variable(name: str, default: str = "*") -> Json:
    """Return a template variable of a tag; all values of it that Datadog knows are offered."""
    return {"name": name, "prefix": name, "available_values": [], "defaults": [default]}


def columns(*wanted: Any) -> tuple[Any, ...]:
    """Return a row of widgets as wide as each other."""
    return tuple((one, COLUMNS // len(wanted)) for one in wanted)
