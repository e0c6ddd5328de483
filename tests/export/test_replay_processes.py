"""Replays by processes: several at once, killed half-way, of another user; and what arrives at a real test agent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from batch_observability.config import Settings
from batch_observability.export.signals import LOGS, METRICS, TRACES
from batch_observability.export.spool import LEDGER, Spool
from batch_observability.export.target import taken_by
from batch_observability.ledger.records import encode
from batch_observability.ledger.store import Ledger
from tests.export.batches import run_batch
from tests.export.sender import Order, waiting
from tests.ledger.runs import finished, run
from tests.live import DogStatsDListener, wait_until

LOW = (1 << 64) - 1
ONLY_TRACES = frozenset({TRACES})
OWNER, OTHER = 65533, 65534


def keep(state, batch, *targets, change=None, takes=None):
    """Let a batch wait, as one whose sidecar is gone."""
    wanted = {target: takes or taken_by(target) for target in targets}
    entries = Spool(state / "spool", 256, 168).put(batch, wanted, encode(change) if change else None)
    for entry in entries:
        entry.release()
    return [entry.path for entry in entries]


def replaying(state, *targets, **options):
    return Order(targets, (), Settings(state_dir=str(state), export_timeout=20), replays=True, **options)


@pytest.fixture
def addresses(agent, dogstatsd):
    return {
        "DD_TRACE_AGENT_URL": agent.apm_url,
        "DD_DOGSTATSD_URL": dogstatsd.url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": agent.otlp_url,
    }


def of(batch, entries):
    return [entry for entry in entries if entry["resource"].get("service.name") == batch.service]


def traces_of(agent, batches):
    """Count the spans of these batches at the test agent, by id."""
    wanted = {batch.spans[0].trace_id & LOW for batch in batches}
    return Counter(span["span_id"] for span in agent.spans() if span["trace_id"] in wanted)


@pytest.mark.thorough
def test_of_several_at_once_each_sends_something_else_and_every_signal_arrives_once(
    agent, dogstatsd, dispatch, addresses, tmp_path
):
    batches = [run_batch(name=f"run-{number}") for number in range(12)]
    other = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", 10)
    other.apply(finished("run-0", token="told by somebody else", outcome="killed"))
    for number, batch in enumerate(batches):
        change = finished(of=run(f"run-{number}"), token=f"of {number}")
        keep(tmp_path, batch, "datadog", "otlp", change=change)
    with ThreadPoolExecutor(3) as pool:
        outs = list(pool.map(lambda _: dispatch(replaying(tmp_path, "datadog", "otlp"), **addresses), range(3)))
    results = [out["results"][-1] for out in outs]
    sent = sum((Counter(result["sent"]) for result in results), Counter())
    # What one of them has locked when the last looks for it is left to him.
    assert sent == {LEDGER: 12, "datadog": 33, "otlp": 33}, outs
    assert sum(result["untold"] for result in results) == 1
    assert waiting(tmp_path) == []
    assert not [result for result in results if result["refused"] or result["dropped"] or result["unreadable"]]

    told = batches[1:]
    ids = {span.span_id for batch in told for span in batch.spans}
    wait_until(lambda: len(traces_of(agent, batches)) >= len(ids), "all spans are there", 10, every=0.1)
    assert traces_of(agent, batches) == dict.fromkeys(ids, 1)
    services = {batch.service: 0 for batch in batches}
    spans = Counter(span["span_id"] for span in agent.otlp_spans() if span["resource"]["service.name"] in services)
    assert spans == {f"{span_id:016x}": 1 for span_id in ids}
    for batch in told:
        assert len(of(batch, agent.otlp_logs())) == 1
    arrived = Counter(
        metric.tag("service") for metric in dogstatsd.metrics("batch_model.run.finished") if metric.tag("service")
    )
    assert {service: arrived[service] for service in services} == {
        batch.service: int(batch is not batches[0]) for batch in batches
    }


def test_spans_of_a_killed_replayer_are_sent_again_with_the_same_ids(agent, dispatch, addresses, tmp_path):
    batch = run_batch()
    keep(tmp_path, batch, "datadog", takes=ONLY_TRACES)
    dispatch(replaying(tmp_path, "datadog", dies=True), **addresses)
    assert waiting(tmp_path) == ["datadog.traces"]
    first = wait_until(lambda: traces_of(agent, [batch]), "the spans are there", 5, every=0.05)
    out = dispatch(replaying(tmp_path, "datadog"), **addresses)
    assert out["results"][-1]["sent"] == {"datadog": 1}
    assert waiting(tmp_path) == []
    wait_until(lambda: traces_of(agent, [batch]).total() == 6, "they are there again", 5, every=0.05)
    assert set(first) == set(traces_of(agent, [batch])) == {span.span_id for span in batch.spans}


def test_metrics_of_a_killed_replayer_are_not_sent_again_and_that_is_told(dispatch, tmp_path):
    batch = run_batch()
    keep(tmp_path, batch, "datadog", takes=frozenset({METRICS}))
    with DogStatsDListener() as listener:
        dispatch(replaying(tmp_path, "datadog", dies=True), DD_DOGSTATSD_URL=listener.url)
        assert [path.suffix for path in (tmp_path / "spool" / "datadog").iterdir()] == [".sending"]
        out = dispatch(replaying(tmp_path, "datadog"), DD_DOGSTATSD_URL=listener.url)
        assert out["results"][-1]["dropped"] == {"uncertain": 1}
        told = wait_until(lambda: listener.metrics("batch_model.telemetry.dropped"), "it is told", 5, every=0.02)
        assert [(metric.value, metric.tag("reason")) for metric in told] == [(1, "uncertain")]
        assert len(listener.metrics("batch_model.run.finished")) == 1
    assert waiting(tmp_path) == []


@pytest.fixture
def open_folder():
    """A folder that other users may look into, as pytest's are not."""
    folder = Path(tempfile.mkdtemp(prefix="batchobs-replay-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
def test_a_file_of_another_user_is_set_aside_named_once_and_does_not_keep_the_rest(agent, dispatch, open_folder):
    state = open_folder / "state"
    batches = [run_batch(name="theirs"), run_batch(name="ours")]
    theirs, ours = (keep(state, batch, "otlp", takes=ONLY_TRACES)[0] for batch in batches)
    for path in (state, state / "spool", state / "spool" / "otlp", ours):
        os.chown(path, OWNER, OWNER)
    os.chown(theirs, OTHER, OTHER)
    settings = Settings(state_dir=str(state), export_timeout=20)
    # The first batch is sent as root: it loads what this user may not read.
    order = Order(("otlp",), (run_batch(name="first"),), settings, replays=True, user=OWNER)
    out = dispatch(order, OTEL_EXPORTER_OTLP_ENDPOINT=agent.otlp_url)
    (_, done) = out["results"]
    assert done["unreadable"] == [f"{theirs} cannot be read: Permission denied"]
    assert done["dropped"] == {"unreadable": 1}
    assert done["refused"] == {}
    assert of(batches[1], agent.otlp_spans())
    assert not of(batches[0], agent.otlp_spans())
    assert waiting(state) == ["otlp.broken"]
    out = dispatch(order, OTEL_EXPORTER_OTLP_ENDPOINT=agent.otlp_url)
    assert out["results"][-1]["unreadable"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_could_not_be_removed_later_is_not_sent(agent, dispatch, open_folder):
    state = open_folder / "state"
    batch = run_batch()
    (path,) = keep(state, batch, "otlp", takes=ONLY_TRACES)
    path.chmod(0o644)
    for folder in path.parents[:3]:
        folder.chmod(0o755)
    order = Order(("otlp",), (run_batch(),), Settings(state_dir=str(state)), replays=True, user=OWNER)
    (_, done) = dispatch(order, OTEL_EXPORTER_OTLP_ENDPOINT=agent.otlp_url)["results"]
    assert "may only be read" in done["refused"]["otlp"]
    assert waiting(state) == ["otlp.traces"]
    assert not of(batch, agent.otlp_spans())


# --- A round trip ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twice(agent, dogstatsd, dispatch, refused, tmp_path_factory):
    """Send one batch directly, and another later, which was kept while nobody listened; return both."""
    direct, kept = run_batch(), run_batch()
    state = tmp_path_factory.mktemp("state")
    nobody = f"http://127.0.0.1:{refused}"
    away = {
        "DD_TRACE_AGENT_URL": nobody,
        "DD_DOGSTATSD_URL": f"udp://127.0.0.1:{refused}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": nobody,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5",
    }
    back = {
        "DD_TRACE_AGENT_URL": agent.apm_url,
        "DD_DOGSTATSD_URL": dogstatsd.url,
        "OTEL_EXPORTER_OTLP_ENDPOINT": agent.otlp_url,
    }
    targets, settings = ("datadog", "otlp"), Settings(state_dir=str(state))
    (first,) = dispatch(Order(targets, (kept,), settings), **away)["results"]
    assert all(first["errors"].values())
    assert len(first["left"]) == 6
    # Of another environment: the batch's own counts.
    (_, done) = dispatch(Order(targets, (direct,), settings, replays=True), **back, DD_ENV="another")["results"]
    assert done["sent"] == {"datadog": 3, "otlp": 3}
    assert done["left"] == []
    return direct, kept


def shape(batch, spans, times):
    """Return what a reader sees of spans, with ids and times relative to those of their batch."""
    ids = {span.span_id: index for index, span in enumerate(batch.spans)}
    return [
        {name: value for name, value in span.items() if name not in times}
        | {"span_id": ids[span["span_id"]], "parent_id": ids.get(span["parent_id"], "outside")}
        for span in sorted(spans, key=lambda span: ids[span["span_id"]])
    ]


def test_spans_for_datadog_arrive_as_those_that_were_sent_directly(agent, twice):
    found = []
    for batch in twice:
        spans = wait_until(
            lambda batch=batch: [span for span in agent.spans() if span["trace_id"] == batch.spans[0].trace_id & LOW],
            "the spans are there",
            5,
            every=0.05,
        )
        by_id = {span.span_id: span for span in batch.spans}
        assert len(spans) == 3
        for span in spans:
            sent = by_id[span["span_id"]]
            assert span["parent_id"] == sent.parent_id
            assert span["start"] == sent.start_ns
            assert abs(span["duration"] - (sent.end_ns - sent.start_ns)) <= 250
            assert span["service"] == batch.service
            assert span["meta"].pop("env") == batch.env
            assert int(span["meta"].pop("_dd.p.tid", f"{sent.trace_id >> 64:x}"), 16) == sent.trace_id >> 64
        run_span = next(span for span in spans if span["span_id"] == batch.spans[0].span_id)
        (link,) = run_span.pop("span_links")
        assert (link["trace_id_high"] << 64 | link["trace_id"], link["span_id"]) == batch.spans[0].links[0]
        assert run_span["meta"].pop("events")
        assert run_span["meta"]["version"] == batch.version
        assert run_span["metrics"]["_dd.measured"] == 1
        for span in spans:
            for own in ("runtime-id", "_dd.p.dm", "_dd.base_service"):
                span["meta"].pop(own, None)
            span.get("metrics", {}).pop("process_id", None)
        found.append(shape(batch, spans, ("trace_id", "start", "duration", "service")))
    assert found[0] == found[1]


def test_metrics_and_events_arrive_as_those_that_were_sent_directly(dogstatsd, twice):
    found = []
    for batch in twice:
        metrics = [metric for metric in dogstatsd.metrics() if metric.tag("service") == batch.service]
        events = [event for event in dogstatsd.events() if f"service:{batch.service}" in event.tags]
        assert [f"d:{batch.events[0].time_ns // 10**9}" in event.fields for event in events] == [True]
        own = f"service:{batch.service}"
        found.append(
            (
                sorted((m.name, m.value, m.type, m.rate, sorted(m.tags - {own})) for m in metrics),
                [(e.title, e.text, e.alert_type, e.aggregation_key, sorted(e.tags - {own})) for e in events],
            )
        )
    assert found[0] == found[1]
    assert len(found[0][0]) == 7


def without(entry, *names):
    return {name: value for name, value in entry.items() if name not in names} | {
        "resource": {key: value for key, value in entry["resource"].items() if key != "service.name"}
    }


def test_signals_by_otlp_arrive_as_those_that_were_sent_directly(agent, twice):
    found = []
    for batch in twice:
        spans = wait_until(lambda batch=batch: of(batch, agent.otlp_spans()), "the spans are there", 5, every=0.05)
        by_id = {f"{span.span_id:016x}": span for span in batch.spans}
        for span in spans:
            sent = by_id[span["span_id"]]
            assert span["trace_id"] == f"{sent.trace_id:032x}"
            assert span["parent_span_id"] == f"{sent.parent_id:016x}"
            assert (span["start_time_unix_nano"], span["end_time_unix_nano"]) == (sent.start_ns, sent.end_ns)
            assert [int(event["time_unix_nano"]) for event in span["events"]] == [e.time_ns for e in sent.events]
            assert [(link["trace_id"], link["span_id"]) for link in span["links"]] == [
                (f"{trace_id:032x}", f"{span_id:016x}") for trace_id, span_id in sent.links
            ]
            for event in span["events"]:
                event.pop("time_unix_nano")
        ids = ("trace_id", "span_id", "parent_span_id", "links")
        times = ("start_time_unix_nano", "end_time_unix_nano", "time_unix_nano", "observed_time_unix_nano")
        (record,) = of(batch, agent.otlp_logs())
        assert record["trace_id"] == f"{batch.logs[0].trace_id:032x}"
        assert int(record["time_unix_nano"]) == batch.logs[0].time_ns
        points = of(batch, agent.otlp_metrics())
        for point in points:
            assert point["attributes"].pop("service") == batch.service
        found.append(
            {
                TRACES: [without(span, *ids, *times) for span in spans],
                LOGS: without(record, *ids, *times),
                METRICS: sorted((without(point, *times) for point in points), key=repr),
            }
        )
    assert found[0] == found[1]
