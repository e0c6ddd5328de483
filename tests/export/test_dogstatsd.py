"""Metrics and events at a DogStatsD listener, over UDP and over a Unix socket."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from batch_observability import schema
from batch_observability.export import datadog
from batch_observability.export.datadog import DatadogTarget
from batch_observability.export.signals import EVENTS, METRICS, Point
from batch_observability.export.target import ExportError
from tests.export.batches import ENV, VERSION, run_batch
from tests.live import DogStatsDListener, wait_until

BOTH = frozenset({METRICS, EVENTS})


@pytest.fixture
def short_folder():
    """A Unix socket's path has at most 107 bytes, which pytest's folders may not leave room for."""
    with tempfile.TemporaryDirectory(prefix="dsd-") as folder:
        yield Path(folder)


@pytest.fixture(params=["udp", "unix"])
def listener(request, short_folder):
    with DogStatsDListener(short_folder / "dsd.socket" if request.param == "unix" else None) as listener:
        yield listener


def send(batch, environ):
    target = DatadogTarget(environ)
    try:
        target.send(batch)
    finally:
        target._statsd.close_socket()


def arrived(listener, batch):
    wait_until(
        lambda: len(listener.metrics()) >= len(batch.points) and len(listener.events()) >= len(batch.events),
        "all metrics and events are there",
        5,
        lambda: (listener.metrics(), listener.events()),
        every=0.02,
    )
    assert listener.malformed() == []
    return {(metric.name, metric.tag("stage") or ""): metric for metric in listener.metrics()}


def test_names_types_values_and_tags(listener, monkeypatch):
    monkeypatch.setenv("DD_DOGSTATSD_URL", listener.url)
    batch = run_batch().only(BOTH)
    send(batch, {"DD_DOGSTATSD_URL": listener.url})
    metrics = arrived(listener, batch)
    assert {(name, stage): (metric.type, metric.value) for (name, stage), metric in metrics.items()} == {
        ("batch_model.run.started", ""): ("c", 1),
        ("batch_model.run.finished", ""): ("c", 1),
        ("batch_model.run.duration", ""): ("d", 3.5),
        ("batch_model.stage.duration", "score"): ("d", 2.5),
        ("batch_model.stage.duration", "predict"): ("d", 0.25),
        ("batch_model.rows.read", ""): ("d", 48210),
        ("batch_model.sla.margin", ""): ("g", -12.5),
    }
    common = {f"env:{ENV}", f"service:{batch.service}", f"version:{VERSION}", "model:churn", "owner:team_é", "dag_id:d"}
    assert metrics["batch_model.run.started", ""].tags == common
    assert metrics["batch_model.run.finished", ""].tags == common | {"outcome:failed"}
    assert metrics["batch_model.sla.margin", ""].tags == common | {"objective:finish_within"}
    assert {metric.rate for metric in metrics.values()} == {1.0}


def test_an_event_says_what_happened_to_whom(listener, monkeypatch):
    monkeypatch.setenv("DD_DOGSTATSD_URL", listener.url)
    batch = run_batch().only(frozenset({EVENTS}))
    send(batch, {"DD_DOGSTATSD_URL": listener.url})
    arrived(listener, batch)
    (event,) = listener.events()
    assert (event.title, event.text) == ("Batch model churn was killed", "line one\nline two: é")
    assert (event.alert_type, event.aggregation_key) == ("error", "churn:killed")
    assert {f"service:{batch.service}", "model:churn"} <= event.tags
    assert f"d:{batch.events[0].time_ns // 10**9}" in event.fields


def test_env_service_and_version_of_the_process_do_not_double_those_of_the_model(listener, monkeypatch):
    environ = {
        "DD_DOGSTATSD_URL": listener.url,
        "DD_ENV": "prod",
        "DD_SERVICE": "airflow-worker",
        "DD_VERSION": "99",
        "DATADOG_TAGS": "region:eu",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    batch = run_batch().only(BOTH)
    send(batch, environ)
    arrived(listener, batch)
    for entry in [*listener.metrics(), *listener.events()]:
        keys = [tag.partition(":")[0] for tag in entry.tags]
        assert sorted(set(keys)) == sorted(keys)
        assert {f"env:{ENV}", f"service:{batch.service}", f"version:{VERSION}", "region:eu"} <= entry.tags


def test_a_tag_value_with_separators_of_the_protocol_stays_one_tag(listener, monkeypatch):
    monkeypatch.setenv("DD_DOGSTATSD_URL", listener.url)
    batch = run_batch().only(frozenset({METRICS}))
    point = Point(schema.STAGE_DURATION, 1.5, {schema.TAG_STAGE: "load, then|#go\nhome"})
    batch = replace(batch, points=(point,))
    send(batch, {"DD_DOGSTATSD_URL": listener.url})
    arrived(listener, batch)
    assert [metric.tags for metric in listener.metrics()] == [frozenset({"stage:load__then__go_home"})]


def test_a_long_run_fits_into_datagrams(listener, monkeypatch):
    monkeypatch.setenv("DD_DOGSTATSD_URL", listener.url)
    batch = run_batch().only(frozenset({METRICS}))
    points = tuple(Point(schema.STAGE_DURATION, n, {schema.TAG_STAGE: f"stage-{n}"}) for n in range(500))
    batch = replace(batch, points=points)
    send(batch, {"DD_DOGSTATSD_URL": listener.url})
    assert len(arrived(listener, batch)) == 500


def test_an_event_is_cut_to_the_8_kb_that_an_agent_reads(monkeypatch):
    """https://docs.datadoghq.com/extend/dogstatsd/high_throughput/: the Agent's buffer holds 8192 bytes."""
    with DogStatsDListener() as listener:
        monkeypatch.setenv("DD_DOGSTATSD_URL", listener.url)
        batch = run_batch().only(frozenset({EVENTS}))
        batch = replace(batch, events=(replace(batch.events[0], text="☁" * 5000),))
        send(batch, {"DD_DOGSTATSD_URL": listener.url})
        arrived(listener, batch)
        assert 3000 < len(listener.events()[0].text.encode()) < 8000


def test_a_socket_that_nobody_listens_on_is_an_export_error(short_folder, monkeypatch):
    monkeypatch.setenv("DD_DOGSTATSD_URL", f"unix://{short_folder}/nobody.socket")
    with pytest.raises(ExportError, match=r"nobody\.socket did not take the metrics") as caught:
        send(run_batch().only(BOTH), {"DD_DOGSTATSD_URL": f"unix://{short_folder}/nobody.socket"})
    assert caught.value.signals == BOTH


def test_a_port_that_nobody_listens_on_is_an_export_error(refused, monkeypatch):
    monkeypatch.setenv("DD_DOGSTATSD_URL", f"udp://127.0.0.1:{refused}")
    with pytest.raises(ExportError, match=rf"127\.0\.0\.1:{refused} did not take the metrics") as caught:
        send(run_batch().only(BOTH), {"DD_DOGSTATSD_URL": f"udp://127.0.0.1:{refused}"})
    assert caught.value.signals == BOTH


def test_events_alone_that_nobody_takes_are_an_export_error(short_folder, monkeypatch):
    monkeypatch.setenv("DD_DOGSTATSD_URL", f"unix://{short_folder}/nobody.socket")
    with pytest.raises(ExportError):
        send(run_batch().only(frozenset({EVENTS})), {"DD_DOGSTATSD_URL": f"unix://{short_folder}/nobody.socket"})


def test_the_agent_of_the_trace_url_is_taken_where_nothing_else_is_said(monkeypatch):
    with DogStatsDListener() as listener:
        monkeypatch.setenv("DD_DOGSTATSD_PORT", listener.url.rpartition(":")[2])
        batch = run_batch().only(BOTH)
        send(batch, {"DD_TRACE_AGENT_URL": "http://127.0.0.1:9"})
        arrived(listener, batch)


def test_a_socket_of_a_local_agent_is_taken_where_nothing_is_said(short_folder, monkeypatch):
    monkeypatch.setattr(datadog, "_DOGSTATSD_SOCKET", short_folder / "dsd.socket")
    with DogStatsDListener(short_folder / "dsd.socket") as listener:
        batch = run_batch().only(BOTH)
        send(batch, {})
        arrived(listener, batch)
