"""
Queries as Datadog reads them, made from the names of `schema.py`: no name is typed, and a tag that a metric does not
have is a mistake at once.

Metrics are filtered by tags, as Datadog normalises them; spans and logs by attributes (`@name`), as they are written.
Percentiles are taken over spans, which are all kept (`retention.py`): those of a metric would have to be switched on
for each metric, and be paid for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from batch_observability import schema
from batch_observability.model import BatchModel
from batch_observability.schema import Metric, MetricType, Outcome

Json = dict[str, Any]

# What a dashboard can be narrowed by.
VARIABLES = (
    schema.TAG_ENV,
    schema.TAG_SERVICE,
    schema.TAG_OWNER,
    schema.TAG_TIER,
    schema.TAG_MODEL,
    schema.TAG_SOURCE,
)
# Names of Datadog's own, that every span or log record has.
OPERATION, RESOURCE, STATUS, MESSAGE = "operation_name", "resource_name", "status", "message"
DURATION = "@duration"
# Attributes of run spans and of the log record of a run that hold what a variable holds.
_OF_VARIABLE = {
    schema.TAG_MODEL: schema.MODEL_NAME,
    schema.TAG_OWNER: schema.MODEL_OWNER,
    schema.TAG_TIER: schema.MODEL_TIER,
}
_OPEN = (Outcome.RETRYING, Outcome.SKIPPED, Outcome.CANCELLED)
_MAX_TAG = 200
# Values that a query over spans is split into, by each attribute.
_GROUPS = 10


# --- Metrics -----------------------------------------------------------------------------------------------------


def tag_value(value: object) -> str:
    """Return the value of a tag as Datadog keeps it: https://docs.datadoghq.com/getting_started/tagging/#define-tags."""
    return re.sub(r"[^\w:./\-]", "_", str(value).lower())[:_MAX_TAG]


def tag(name: str, value: object) -> str:
    """Return a filter for one value of a tag."""
    return f"{name}:{tag_value(value)}"


def but(name: str, value: object) -> str:
    """Return a filter for all but one value of a tag."""
    return f"!{tag(name, value)}"


def model_tags(model: BatchModel, env: str) -> list[str]:
    """Return the tags of what is about a model in one environment; empty ones are left out."""
    named = {
        schema.TAG_SERVICE: model.service,
        schema.TAG_OWNER: model.owner,
        schema.TAG_TIER: model.tier,
        schema.TAG_MODEL: model.name,
        schema.TAG_ENV: env,
    }
    return [tag(name, value) for name, value in named.items() if value]


# Runs that ended for good, of which success rates are made: a try that is repeated, and what nobody wanted, is none.
ENDED = tuple(but(schema.TAG_OUTCOME, outcome) for outcome in _OPEN)
SUCCEEDED = (tag(schema.TAG_OUTCOME, Outcome.SUCCESS),)
FAILED = (*ENDED, but(schema.TAG_OUTCOME, Outcome.SUCCESS))
VARIABLE_TAGS = tuple(f"${name}" for name in VARIABLES)


def metric(of: Metric, filters: Iterable[str] = VARIABLE_TAGS, by: Sequence[str] = (), how: str = "") -> str:
    """
    Return a metric query.

    Args:
        of: the metric.
        filters: of which all must hold; default: the variables of a dashboard.
        by: tags that it is split by.
        how: `sum`, `avg`, `max`, `min`; default: `sum` for counts, else `avg`.

    Raises:
        ValueError: for a tag that the metric does not have.
    """
    chosen = list(filters)
    has = {*schema.TAGS, of.extra_tag}
    for name in [*by, *(one.lstrip("!$").partition(":")[0] for one in chosen)]:
        if name not in has:
            raise ValueError(f"metric {of.name} has no tag {name!r}; it has {', '.join(sorted(has - {''}))}")
    counted = of.type is MetricType.COUNT
    split = f" by {{{','.join(by)}}}" if by else ""
    text = f"{how or ('sum' if counted else 'avg')}:{of.name}{{{','.join(chosen) or '*'}}}{split}"
    return f"{text}.as_count()" if counted else text


def daily(query: str) -> str:
    """Return a query with one value a day."""
    return f"{query}.rollup(sum, 86400)"


def of_metric(name: str, query: str, aggregator: str = "") -> Json:
    """Return a metric query of a widget; `aggregator` makes one value of it where only one is shown."""
    found: Json = {"data_source": "metrics", "name": name, "query": query}
    return {**found, "aggregator": aggregator} if aggregator else found


# --- Spans and logs ----------------------------------------------------------------------------------------------


def attribute(name: str, **filled: str) -> str:
    """Return an attribute as searches name it, its placeholders filled: `objective="finish_by"`."""
    known = {**schema.ATTRIBUTES, **schema.LOG_FIELDS}
    if name not in known:
        raise ValueError(f"schema.py has no attribute {name!r}")
    for placeholder, value in filled.items():
        name = name.replace(f"<{placeholder}>", value)
    return f"@{name}"


def term(name: str, value: object, **filled: str) -> str:
    """Return a search term: an attribute has a value. `*` is any."""
    text = str(value)
    plain = re.fullmatch(r"[\w.*\-]+|\$\w+\.value|\([\w ]+\)", text)
    return f"{attribute(name, **filled)}:{text if plain else _quoted(text)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def any_of(values: Iterable[str]) -> str:
    """Return the value of a term that may be one of several."""
    return f"({' OR '.join(values)})"


FAILED_OUTCOMES = any_of(one.value for one in Outcome if one not in (*_OPEN, Outcome.SUCCESS))


def runs(*terms: str) -> str:
    """Return a search for spans of runs, within the variables of a dashboard."""
    return " ".join([f"{OPERATION}:{schema.RUN}", *_variables(_OF_VARIABLE), *terms])


def stages() -> str:
    """Return a search for spans of stages, within the variables of a dashboard that they have."""
    return " ".join([f"{OPERATION}:{schema.STAGE}", *_variables({schema.TAG_MODEL: schema.MODEL_NAME})])


def records(*terms: str) -> str:
    """Return a search for log records, within the variables of a dashboard that all records of ours have."""
    return " ".join([*_variables({schema.TAG_MODEL: schema.LOG_MODEL_NAME}), *terms])


def _variables(attributes: dict[str, str]) -> list[str]:
    shared = [f"${schema.TAG_ENV}", f"${schema.TAG_SERVICE}"]
    return [*shared, *(term(name, f"${variable}.value") for variable, name in attributes.items())]


def runs_of(model: str, env: str, *terms: str) -> str:
    """Return a search for the spans of runs of one model."""
    return " ".join([f"{OPERATION}:{schema.RUN}", tag(schema.TAG_ENV, env), term(schema.MODEL_NAME, model), *terms])


def records_of(model: str, env: str) -> str:
    """Return a search for the log records of one model."""
    return f"{tag(schema.TAG_ENV, env)} {term(schema.LOG_MODEL_NAME, model)}"


def of_spans(
    name: str, search: str, how: str = "count", over: str = "", by: Sequence[str] = (), *, least: bool = False
) -> Json:
    """
    Return a query over spans of a widget.

    Args:
        name: of the query, for its formula.
        search: which spans.
        how: `count`, `cardinality`, `avg`, `sum`, `max`, `median` or `pc95`.
        over: of what, as searches name it; not for `count`.
        by: attributes that it is split by, as searches name them.
        least: of each attribute, the values with the least are shown and not those with the most.
    """
    compute = {"aggregation": how, **({"metric": over} if over else {})}
    groups = [
        {"facet": facet, "limit": _GROUPS, "sort": {**compute, "order": "asc" if least else "desc"}} for facet in by
    ]
    found: Json = {"data_source": "spans", "name": name, "search": {"query": search}, "compute": compute}
    return {**found, "group_by": groups, "indexes": ["*"]} if groups else {**found, "indexes": ["*"]}


# --- Links -------------------------------------------------------------------------------------------------------


def app(site: str) -> str:
    """Return the address of Datadog's pages for a site: `us5.datadoghq.com` and its like are their own."""
    return f"https://{site}" if site.count(".") > 1 else f"https://app.{site}"


def link(site: str, page: str, **parameters: str) -> str:
    """Return the address of a page of Datadog."""
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    return f"{app(site)}/{page}?{query}" if query else f"{app(site)}/{page}"
