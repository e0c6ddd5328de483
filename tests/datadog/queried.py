"""
The names that rendered resources ask Datadog for, read back out of their bodies as Datadog would read them, and which
of them `schema.py` does not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from batch_observability import schema
from batch_observability.datadog.resource import Resource

# Datadog's own names, which all spans and log records have.
RESERVED_TERMS = {"operation_name", "service", "env", "source"}
RESERVED_FIELDS = {"@duration", "resource_name", "status", "message", "timestamp"}
TIMES = {"from_ts", "to_ts", "live"}
FUNCTIONS = {"default_zero", "week_before", "anomalies", "rollup", "sum", "as_count"}
METRIC = re.compile(r"\b(sum|avg|min|max):([\w.]+)\{([^{}]*)\}(?: by \{([^{}]*)\})?")
WINDOW = re.compile(r"^(?:sum|avg|min|max)\(last_(\d+)h\):(.*) (?:>=|<) [\d.]+$")
TERM = re.compile(r"""(-?)(@?[\w.]+):("(?:[^"\\]|\\.)*"|\([^()]*\)|\S+)""")
OUR_OWN = re.compile(r"(?<![\w/.@:-])@?((?:batch_model|airflow)\.[a-z_]\w*(?:\.\w+)*)")


@dataclass
class Names:
    """What is asked for, and what is wrong with it, each with where."""

    metrics: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


def names_in(resources: list[Resource]) -> Names:
    """Read all queries of resources."""
    names = Names()
    for one in resources:
        for place, value in walk(one.body, f"{one.kind}:{one.key}"):
            if isinstance(value, dict):
                of_mapping(names, place, value)
            elif isinstance(value, str):
                of_text(names, place, value)
        if one.kind == "monitor" and one.body["type"] == "query alert":
            match = WINDOW.match(one.body["query"])
            of_metrics(names, one.key, match[2] if match else one.body["query"])
            if not match:
                names.wrong.append(f"{one.key}: no window in {one.body['query']}")
        if one.kind == "slo" and "query" in one.body:
            for text in one.body["query"].values():
                of_metrics(names, one.key, text)
        if one.kind == "retention_filter":
            of_search(names, one.key, one.body["filter"]["query"], spans=True)
    return names


def walk(value: object, place: str) -> Iterator[tuple[str, object]]:
    yield place, value
    if isinstance(value, dict):
        for key, child in value.items():
            yield from walk(child, f"{place}.{key}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from walk(child, f"{place}[{index}]")


def of_mapping(names: Names, place: str, value: dict) -> None:
    source = value.get("data_source")
    if source == "metrics":
        of_metrics(names, place, value["query"])
    elif source == "spans":
        of_search(names, place, value["search"]["query"], spans=True)
        facets = [one["facet"] for one in value.get("group_by", [])]
        for facet in [*facets, *filter(None, [value["compute"].get("metric")])]:
            of_attribute(names, place, facet, spans=True)
    elif source in ("trace_stream", "logs_stream"):
        of_search(names, place, value["query_string"], spans=source == "trace_stream")
    elif source is not None:
        names.wrong.append(f"{place}: data source {source!r} is not known here")
    if "formulas" in value and "queries" in value:
        known = {one["name"] for one in value["queries"]} | FUNCTIONS | {"agile"}
        for one in value["formulas"]:
            unknown = set(re.findall(r"[a-z_]\w*", one["formula"])) - known
            names.wrong += [f"{place}: formula {one['formula']!r} has {name!r}" for name in unknown]
    if isinstance(value.get("columns"), list) and "query" in value:
        spans = value["query"]["data_source"] == "trace_stream"
        for column in value["columns"]:
            of_attribute(names, place, column["field"], spans=spans)
    if "prefix" in value and value["prefix"] not in schema.TAGS:
        names.wrong.append(f"{place}: variable of {value['prefix']!r}")
    if "processors" in value:
        of_pipeline(names, place, value)
    if place.startswith("service:") and "query" in value:
        of_search(names, place, value["query"], spans=False)


def of_pipeline(names: Names, place: str, pipeline: dict) -> None:
    of_search(names, place, pipeline["filter"]["query"], spans=False)
    for one in pipeline["processors"]:
        # The record at the end of a run has all attributes of its span.
        unknown = set(one["sources"]) - set(schema.LOG_FIELDS) - set(schema.ATTRIBUTES)
        names.wrong += [f"{place}: source {name!r}" for name in unknown]
        if "target" in one and (one["target_type"], one["target"] in schema.TAGS) != ("tag", True):
            names.wrong.append(f"{place}: target {one['target']!r}")


def of_text(names: Names, place: str, text: str) -> None:
    """Read what is in any text: names that look like ours, and searches of links."""
    for url in re.findall(r"https://[^\s)]+", re.sub(r"\{\{eval .*?\}\}", "0", text)):
        parts = urlsplit(url)
        for name, values in parse_qs(parts.query).items():
            if name == "query":
                of_search(names, place, values[0], spans="traces" in parts.path)
            elif name not in TIMES and name.removeprefix("tpl_var_") not in schema.TAGS:
                names.wrong.append(f"{place}: parameter {name!r} of a link")
    known = {*schema.METRICS, *schema.LOG_FIELDS, *schema.ATTRIBUTES, *schema.SPANS}
    for name in OUR_OWN.findall(unquote(text)):
        if name not in known and not is_pattern_of(name):
            names.wrong.append(f"{place}: {name!r} is none of the schema")


def of_metrics(names: Names, place: str, text: str) -> None:
    """Read a query of metrics, with functions and arithmetic around them."""
    found = METRIC.findall(text)
    if not found:
        names.wrong.append(f"{place}: no metric in {text!r}")
    for _, name, filters, by in found:
        if name not in schema.METRICS:
            names.wrong.append(f"{place}: metric {name!r}")
            continue
        names.metrics.add(name)
        has = {*schema.TAGS, schema.METRICS[name].extra_tag} - {""}
        used = [one.strip().lstrip("!$").partition(":")[0] for one in filters.split(",") if one != "*"]
        used += by.split(",") if by else []
        names.wrong += [f"{place}: tag {tag!r} of {name}" for tag in used if tag not in has]
    rest = METRIC.sub("", text)
    unknown = set(re.findall(r"[A-Za-z_][\w.]*", rest)) - FUNCTIONS
    names.wrong += [f"{place}: {word!r} in {text!r}" for word in unknown]


def of_search(names: Names, place: str, text: str, *, spans: bool) -> None:
    """Read a search for spans or log records."""
    rest = TERM.sub("", text)
    for word in rest.split():
        if word.lstrip("$") not in schema.TAGS or not word.startswith("$"):
            names.wrong.append(f"{place}: {word!r} in search {text!r}")
    for _, name, value in TERM.findall(text):
        if name.startswith("@"):
            of_attribute(names, place, name, spans=spans)
        elif name not in RESERVED_TERMS:
            names.wrong.append(f"{place}: {name!r} in search {text!r}")
        elif name == "operation_name" and value not in schema.SPANS:
            names.wrong.append(f"{place}: operation {value!r}")
        if name == f"@{schema.OUTCOME}":
            outcomes = set(value.strip("()").split(" OR "))
            names.wrong += [f"{place}: outcome {one!r}" for one in outcomes - set(schema.Outcome)]
        if value.startswith("$") and value[1:].removesuffix(".value") not in schema.TAGS:
            names.wrong.append(f"{place}: variable {value!r}")


def of_attribute(names: Names, place: str, name: str, *, spans: bool) -> None:
    if name in RESERVED_FIELDS:
        return
    plain = name.removeprefix("@")
    known = schema.ATTRIBUTES if spans else {**schema.LOG_FIELDS, **schema.ATTRIBUTES}
    if not name.startswith("@") or not (plain in known or is_pattern_of(plain)):
        names.wrong.append(f"{place}: attribute {name!r}")


def is_pattern_of(name: str) -> bool:
    """Return whether a name is one of those that have an objective in them."""
    from batch_observability.objective import OBJECTIVES

    patterns = [one for one in schema.ATTRIBUTES if "<objective>" in one]
    return any(one.replace("<objective>", objective) == name for one in patterns for objective in OBJECTIVES)
