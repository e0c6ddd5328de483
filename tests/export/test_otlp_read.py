"""What `otlp_json` writes is read back as it was, and whatever else a file may hold is refused in one line."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_observability import schema
from batch_observability.export.otlp_json import ESCAPE, SEVERITIES, encode
from batch_observability.export.otlp_read import decode
from batch_observability.export.signals import Batch, Error, Event, LogRecord, Point, Span, SpanEvent
from tests.export.batches import run_batch
from tests.export.test_otlp_json import parse

NOW_NS = 1_790_000_000_123_456_789
SIGNALS = ("traces", "metrics", "logs", "events")
OURS = (
    "operation.name",
    "resource.name",
    "span.type",
    "_dd.measured",
    schema.ERROR_TYPE,
    schema.ERROR_MESSAGE,
    schema.ERROR_STACK,
    "title",
    "alert_type",
    "aggregation_key",
    ESCAPE,
    f"{ESCAPE}title",
    f"{ESCAPE}{schema.ERROR_TYPE}",
)

# --- Anything that may be sent -----------------------------------------------------------------------------------

texts = st.text(max_size=12)
keys = st.sampled_from(OURS) | st.sampled_from(sorted(schema.ATTRIBUTES)) | texts
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats()
scalars = st.booleans() | numbers | texts
values = st.recursive(
    st.none() | scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
times = st.integers(0, 2**64 - 1)
trace_ids, span_ids = st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1)
services = st.sampled_from(["", "airflow", "churn", "é"])
operations = st.sampled_from(sorted(schema.SPANS)) | texts
tags = st.dictionaries(keys, texts, max_size=4)
span_events = st.builds(SpanEvent, times, texts, st.dictionaries(keys, scalars, max_size=2))
spans = st.builds(
    Span,
    operation=operations,
    resource=texts,
    service=services,
    version=st.sampled_from(["", "1"]),
    trace_id=trace_ids,
    span_id=span_ids,
    parent_id=st.none() | span_ids,
    start_ns=times,
    end_ns=times,
    attributes=st.dictionaries(keys, scalars, max_size=5),
    error=st.none() | st.builds(Error, texts, texts, texts),
    events=st.lists(span_events, max_size=2).map(tuple),
    links=st.lists(st.tuples(trace_ids, span_ids), max_size=2).map(tuple),
)
points = st.builds(Point, st.sampled_from(list(schema.METRICS.values())), st.floats(), tags)
records = st.builds(
    LogRecord,
    time_ns=times,
    level=st.sampled_from(sorted(SEVERITIES)),
    event=texts,
    trace_id=trace_ids | st.just(0),
    span_id=span_ids | st.just(0),
    attributes=st.dictionaries(keys, values, max_size=4),
)
titles = texts | st.just("two\nlines")
alerts = st.sampled_from(["error", "warning", "success", "info"])
events = st.builds(Event, titles, titles, alerts, texts, tags, times)
batches = st.builds(
    Batch,
    service=services,
    version=st.sampled_from(["", "1"]),
    env=texts,
    name=texts,
    spans=st.lists(spans, max_size=4).map(tuple),
    points=st.lists(points, max_size=3).map(tuple),
    logs=st.lists(records, max_size=3).map(tuple),
    events=st.lists(events, max_size=3).map(tuple),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
)


def exactly(value):
    """Return a value as text that tells an integer from a float and a boolean, and NaN equal to itself."""
    return repr(value)


def read_back(batch, signal, document):
    return decode(signal, json.loads(json.dumps(document)), batch.name)


# --- What went in comes out --------------------------------------------------------------------------------------


@pytest.mark.thorough
@given(batches)
@settings(deadline=None, max_examples=200)
def test_what_was_written_is_read_back(batch):
    documents = encode(batch, NOW_NS)
    for signal, document in documents.items():
        wanted = batch.only(frozenset({signal}))
        assert exactly(read_back(batch, signal, document)) == exactly(wanted)
    assert set(documents) == {
        signal for signal in SIGNALS if batch.only(frozenset({signal})) != batch.only(frozenset())
    }


@pytest.mark.thorough
@given(batches)
@settings(deadline=None, max_examples=50)
def test_a_collector_can_read_whatever_was_written(batch):
    for signal, document in encode(batch, NOW_NS).items():
        assert parse(signal, document)
        json.dumps(document, allow_nan=False)


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_batch_of_a_run_is_read_back(signal):
    batch = run_batch()
    assert read_back(batch, signal, encode(batch, NOW_NS)[signal]) == batch.only(frozenset({signal}))


def test_spans_of_several_services_keep_their_order_and_the_batch_its_own_service():
    run, stage, inner = run_batch().spans
    mixed = (replace(run, service="airflow"), stage, replace(inner, service="airflow", version=""))
    batch = Batch("third", "3", "prod", "mixed", spans=mixed)
    assert read_back(batch, "traces", encode(batch, NOW_NS)["traces"]) == batch


def test_attributes_named_as_ours_are_not_taken_for_them():
    span = replace(run_batch().spans[0], attributes=dict.fromkeys(OURS, "mine"))
    batch = Batch(span.service, span.version, "", "n", spans=(span,))
    document = encode(batch, NOW_NS)["traces"]
    assert read_back(batch, "traces", document) == batch
    assert '"key": "operation.name", "value": {"stringValue": "batch_model.run"}' in json.dumps(document)


def test_an_attribute_named_as_an_error_stays_where_there_is_no_error():
    span = replace(run_batch().spans[1], error=None, attributes={schema.ERROR_TYPE: "mine"})
    batch = Batch(span.service, span.version, "", "n", spans=(span,))
    document = encode(batch, NOW_NS)["traces"]
    assert read_back(batch, "traces", document).spans == (span,)
    assert ESCAPE not in json.dumps(document)


@pytest.mark.parametrize("number", [2**64, -(2**70), 2**64 + 1])
def test_an_integer_beyond_64_bits_becomes_the_nearest_double(number):
    span = replace(run_batch().spans[1], attributes={schema.ROWS_READ: number})
    batch = Batch(span.service, span.version, "", "n", (span,), (Point(schema.METRIC_ROWS_READ, number, {}),))
    documents = encode(batch, NOW_NS)
    assert read_back(batch, "traces", documents["traces"]).spans[0].attributes == {schema.ROWS_READ: float(number)}
    assert read_back(batch, "metrics", documents["metrics"]).points[0].value == float(number)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_beyond_doubles_becomes_infinite(sign):
    span = replace(run_batch().spans[1], attributes={schema.ROWS_READ: sign * 10**400})
    batch = Batch(span.service, span.version, "", "n", (span,))
    (found,) = read_back(batch, "traces", encode(batch, NOW_NS)["traces"]).spans
    assert found.attributes == {schema.ROWS_READ: sign * math.inf}


# --- What is not ours is refused ---------------------------------------------------------------------------------


def refused_or_read(signal, document):
    """Decode a document of unknown making; what is accepted can be written and read again."""
    batch = refused = None
    try:
        batch = decode(signal, document, "n")
    except ValueError as error:
        refused = str(error)
    if batch is None:
        assert refused.startswith(f"not a document of {signal} that this version can read: ")
        assert "\n" not in refused
        assert len(refused) < 250
        return
    for again, written in encode(batch, NOW_NS).items():
        assert again == signal
        assert exactly(read_back(batch, signal, written)) == exactly(batch)


@pytest.mark.thorough
@given(st.sampled_from(SIGNALS), json_values)
@settings(deadline=None, max_examples=300)
def test_any_json_is_a_batch_or_a_value_error(signal, value):
    refused_or_read(signal, value)


def places(value, path=()):
    """Yield the path of each value in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def with_changed(value, path, change):
    """Return a document with the value at a path replaced, or left out if the change is `...`."""
    if not path:
        return change
    copy = value.copy()
    if change is ... and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = with_changed(copy[path[0]], path[1:], change)
    return copy


DOCUMENTS = json.loads(json.dumps(encode(run_batch(), NOW_NS)))
PLACES = {signal: [path for path in places(document) if path] for signal, document in DOCUMENTS.items()}


@pytest.mark.thorough
@given(st.data())
@settings(deadline=None, max_examples=500)
def test_a_document_with_a_part_replaced_is_a_batch_or_a_value_error(data):
    signal = data.draw(st.sampled_from(SIGNALS))
    document = DOCUMENTS[signal]
    path = data.draw(st.sampled_from(PLACES[signal]))
    refused_or_read(signal, with_changed(document, path, data.draw(json_values)))


CHANGES = {
    "lost": ...,
    "null": None,
    "object": {},
    "list": [[]],
    "empty": "",
    "number": -1,
    "infinite": math.inf,
    "true": True,
    "huge": 10**5000,
    "digits": "9" * 5000,
    "lines": "\n" * 99,
}


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_document_with_any_part_lost_or_changed_is_a_batch_or_a_value_error(signal, change):
    for path in PLACES[signal]:
        refused_or_read(signal, with_changed(DOCUMENTS[signal], path, change))


@pytest.mark.parametrize("kind", ["kvlistValue", "arrayValue"])
def test_a_bottomless_attribute_is_a_value_error(kind):
    value = {"boolValue": True}
    for _ in range(100_000):
        value = {kind: {"values": [{"key": "k", "value": value} if kind == "kvlistValue" else value]}}
    record = {**DOCUMENTS["logs"]["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]}
    record["attributes"] = [{"key": "deep", "value": value}]
    resource = {"resource": {}, "scopeLogs": [{"logRecords": [record]}]}
    with pytest.raises(ValueError, match="nested too deeply"):
        decode("logs", {"resourceLogs": [resource]}, "n")


def test_a_metric_of_a_newer_version_is_named():
    text = json.dumps(DOCUMENTS["metrics"]).replace(schema.RUN_STARTED.name, "batch_model.run.novelty")
    with pytest.raises(ValueError, match=r"metrics .*this version has no metric 'batch_model.run.novelty'"):
        decode("metrics", json.loads(text), "n")


@pytest.mark.parametrize("signal", ["", "ledger", "Traces"])
def test_a_signal_that_there_is_not_is_a_value_error(signal):
    with pytest.raises(ValueError, match="no such signal"):
        decode(signal, DOCUMENTS["traces"], "n")


def test_what_batches_cannot_say_is_refused_and_not_lost():
    """A document of somebody else may hold more than one batch does."""
    logs = DOCUMENTS["logs"]["resourceLogs"]
    with pytest.raises(ValueError, match="several resources"):
        decode("logs", {"resourceLogs": logs * 2}, "n")
    traces = DOCUMENTS["traces"]["resourceSpans"]
    with pytest.raises(ValueError, match="several environments"):
        decode("traces", {"resourceSpans": [*traces, {**traces[0], "resource": {}}]}, "n")
    text = json.dumps(DOCUMENTS["metrics"]).replace('"count": "1"', '"count": "2"')
    with pytest.raises(ValueError, match="several values"):
        decode("metrics", json.loads(text), "n")
