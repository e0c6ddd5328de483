"""All signals to a stand-in for Datadog's OTLP intake, which takes and keeps what the real one does."""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from batch_observability.config import Settings
from batch_observability.export import seconds
from batch_observability.export.agentless import AgentlessTarget
from batch_observability.export.replay import replay
from batch_observability.export.seconds import Seconds
from batch_observability.export.signals import LOGS, METRICS, TRACES
from batch_observability.export.target import ExportError, taken_by
from tests.export.batches import VERSION, run_batch
from tests.export.otlp_intake import serving
from tests.export.sender import waiting
from tests.export.worlds import delivery, dropped

EVERYTHING = frozenset({TRACES, METRICS, LOGS})
FINISHED = "batch_model.run.finished"


@pytest.fixture
def intake(monkeypatch):
    with serving() as started:
        for name, value in started.environ.items():
            monkeypatch.setenv(name, value)
        yield started


@pytest.fixture
def target(intake, tmp_path):
    return AgentlessTarget(intake.environ, settings_of(intake, tmp_path))


def settings_of(intake, state) -> Settings:
    return Settings(state_dir=str(state), agentless_url=intake.url)


def own(intake, state):
    return delivery(state, "agentless", agentless_url=intake.url)


def refusal(target, batch) -> ExportError:
    with pytest.raises(ExportError) as raised:
        target.send(batch)
    return raised.value


# --- What it gets ------------------------------------------------------------------------------------------------


def test_spans_arrive_with_their_ids_and_trace_metrics_are_asked_for(intake, target):
    batch = run_batch()
    target.send(batch.only(frozenset({TRACES})))
    run = next(span for span in intake.spans if span["name"] == "batch_model.run")
    assert run["trace_id"] == f"{batch.spans[0].trace_id:032x}"
    assert run["span_id"] == f"{batch.spans[0].span_id:016x}"
    assert run["attributes"]["resource.name"] == "dag.täsk"
    assert run["resource"]["service.name"] == batch.service
    assert len(intake.spans) == len(batch.spans)
    ((signal, headers),) = intake.requests
    assert (signal, headers["compute_stats"], headers["dd-api-key"]) == ("traces", "true", intake.key)


def test_metrics_arrive_as_deltas_with_the_tags_of_the_list_and_no_others(intake, target, monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "batch_model.run_id=not-a-tag")
    batch = run_batch()
    target.send(batch.only(frozenset({METRICS})))
    assert intake.count(FINISHED, outcome="failed", model="churn", service=batch.service) == 1
    assert {series.name for series in intake.values} == {point.metric.name for point in batch.points}
    duration = {value for series, value in intake.values.items() if series.name == "batch_model.run.duration"}
    assert duration == {(1, 3.5)}
    ((_, headers),) = intake.requests
    assert '"resource_attributes_as_tags":false' in headers["dd-otel-metric-config"]
    assert '"mode":"distributions"' in headers["dd-otel-metric-config"]


def test_log_records_arrive_and_find_their_trace(intake, target):
    batch = run_batch()
    target.send(batch.only(frozenset({LOGS})))
    (record,) = intake.logs
    assert (record["body"], record["trace_id"]) == ("batch model run finished", f"{batch.logs[0].trace_id:032x}")
    assert record["resource"]["service.version"] == VERSION


def test_events_are_not_for_it_as_they_are_not_for_otlp():
    assert taken_by("agentless") == taken_by("otlp") == EVERYTHING


def test_a_signal_that_is_switched_off_is_not_sent(intake, tmp_path):
    environ = {**intake.environ, "OTEL_LOGS_EXPORTER": "none"}
    AgentlessTarget(environ, settings_of(intake, tmp_path)).send(run_batch())
    assert [signal for signal, _ in intake.requests] == ["traces", "metrics"]


# --- How much at once --------------------------------------------------------------------------------------------


def test_spans_above_the_limit_go_in_pieces_each_once(intake, target):
    batch = run_batch()
    run = replace(batch.spans[0], attributes={"batch_model.note": "x" * 20_000})
    spans = tuple(replace(run, span_id=number) for number in range(1, 401))
    target.send(replace(batch, spans=spans).only(frozenset({TRACES})))
    assert len(intake.accepted["traces"]) == 4
    assert max(intake.accepted["traces"]) <= 3_200_000
    assert [int(span["span_id"], 16) for span in intake.spans] == list(range(1, 401))


def test_metrics_above_the_limit_go_in_pieces_and_none_overwrites_another(intake, target):
    batch = run_batch()
    stages = [
        replace(point, tags={**point.tags, "stage": f"{number:04d}-{'x' * 1000}"})
        for number in range(400)
        for point in batch.points
    ]
    # The like of one value are far apart here, and must be in one request.
    target.send(replace(batch, points=(*stages, *stages)).only(frozenset({METRICS})))
    assert len(intake.accepted["metrics"]) > 4
    assert max(intake.accepted["metrics"]) <= 500_000
    assert intake.overwritten == []
    assert intake.count(FINISHED) == 800


def test_log_records_go_a_thousand_at_once(intake, target):
    batch = run_batch()
    target.send(replace(batch, logs=batch.logs * 2500).only(frozenset({LOGS})))
    assert (len(intake.logs), len(intake.accepted["logs"])) == (2500, 4)


def test_what_is_too_large_all_the_same_goes_in_halves_and_only_what_alone_is_too_large_is_rejected(intake, target):
    batch = run_batch()
    intake.max_bytes["traces"] = 1500
    spans = tuple(replace(span, attributes={}, error=None, events=(), links=()) for span in batch.spans)
    target.send(replace(batch, spans=spans).only(frozenset({TRACES})))
    assert [span["name"] for span in intake.spans] == ["batch_model.run", "batch_model.stage", "batch_model.stage"]
    huge = replace(spans[0], attributes={"batch_model.note": "x" * 2000})
    error = refusal(target, replace(batch, spans=(huge, *spans[1:])).only(frozenset({TRACES})))
    assert error.rejected
    assert "413" in str(error)
    assert len(intake.spans) == 5


# --- A second of its own -----------------------------------------------------------------------------------------


def test_counts_of_runs_that_end_at_the_same_moment_are_all_kept(intake, tmp_path):
    batch = run_batch().only(frozenset({METRICS}))

    def send():
        # A target each, as of a process each: what they share is the folder.
        for _ in range(5):
            AgentlessTarget(intake.environ, settings_of(intake, tmp_path)).send(batch)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert intake.overwritten == []
    assert intake.count(FINISHED) == 20
    oldest, newest = (choose(series.second for series in intake.values) for choose in (min, max))
    assert time.time() - 60 < oldest <= newest <= time.time()


def test_other_series_and_other_hosts_have_all_seconds_to_themselves(tmp_path):
    points = run_batch(service="a").points
    others = tuple(replace(point, tags={**point.tags, "service": "b"}) for point in points)
    first, second = Seconds(tmp_path).take(points), Seconds(tmp_path).take(others)
    assert abs(first - second) <= 1
    assert abs(Seconds(tmp_path / "of another host").take(points) - first) <= 1


def test_where_every_second_is_taken_metrics_wait_in_the_spool(intake, tmp_path, monkeypatch):
    monkeypatch.setattr(seconds, "WINDOW_S", 2)
    monkeypatch.setattr(time, "time", lambda: 1_790_000_000.5)
    batch = run_batch().only(frozenset({METRICS}))
    ours = own(intake, tmp_path)
    for _ in range(3):
        report = ours.deliver(batch)
    assert "they have to wait" in report.targets["agentless"]
    assert waiting(tmp_path) == ["agentless.metrics"]
    monkeypatch.setattr(time, "time", lambda: 1_790_000_002.5)
    assert replay(ours).sent == {"agentless": 1}
    assert (intake.count(FINISHED), intake.overwritten) == (3, [])


def test_seconds_that_cannot_be_taken_keep_no_metric(intake, target, tmp_path, caplog):
    (tmp_path / "seconds.db").mkdir()
    target.send(run_batch().only(frozenset({METRICS})))
    assert intake.count(FINISHED) == 1
    assert "counts of the same second may be lost" in caplog.text


def test_a_file_that_is_no_database_is_made_anew(intake, target, tmp_path):
    (tmp_path / "seconds.db").write_bytes(b"no database, " * 1000)
    for _ in range(2):
        target.send(run_batch().only(frozenset({METRICS})))
    with closing(sqlite3.connect(tmp_path / "seconds.db")) as database:
        assert database.execute("SELECT count(*) FROM claim").fetchone() != (0,)
    assert (tmp_path / "seconds.db").stat().st_mode & 0o777 == 0o600


# --- What it answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_told_with_the_remedy_and_nothing_is_thrown_away(intake, target, status):
    intake.statuses = {signal: [status] for signal in EVERYTHING}
    intake.says = f'{{"errors": ["no {intake.key}"]}}'.encode()
    error = refusal(target, run_batch().only(EVERYTHING))
    assert error.signals == EVERYTHING
    assert not error.rejected
    assert not error.uncertain
    for reason in error.reasons.values():
        assert f'answered {status}: {{"errors": ["no ***' in reason
        assert "check DD_API_KEY, and DD_SITE, which it belongs to" in reason
        assert len(reason.splitlines()) == 1
    assert "may be a preview" in error.reasons[TRACES]
    assert intake.key not in str(error)


@pytest.mark.parametrize("status", [301, 404, 408, 429, 500, 503])
def test_what_may_be_taken_later_is_no_loss(intake, target, status):
    intake.statuses = {signal: [status] for signal in EVERYTHING}
    batch = run_batch().only(EVERYTHING)
    error = refusal(target, batch)
    assert (error.rejected, error.uncertain) == (False, False)
    target.send(batch)
    assert (len(intake.spans), intake.count(FINISHED), len(intake.logs)) == (3, 1, 1)
    assert intake.overwritten == []


def test_what_the_intake_says_that_it_left_out_is_rejected_and_not_sent_again(intake, tmp_path):
    partial = ExportTracePartialSuccess(rejected_spans=2, error_message="older than a day")
    intake.says = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    ours = delivery(tmp_path, "agentless", "spool", agentless_url=intake.url)
    report = ours.deliver(run_batch().only(frozenset({TRACES})))
    assert report.targets["agentless"] == "Datadog's OTLP intake left 2 out of the traces: older than a day"
    assert ours.spool.paths("agentless")[0].name.endswith("-telemetry-dropped.metrics.jsonl")
    assert dropped(tmp_path)["agentless"] == [("rejected", 1)]


@pytest.mark.parametrize("status", [400, 422])
def test_what_will_never_be_taken_is_rejected(intake, target, status):
    intake.statuses = {"metrics": [status]}
    error = refusal(target, run_batch().only(EVERYTHING))
    assert (error.signals, error.rejected) == ({METRICS}, False)
    intake.statuses = {"metrics": [status]}
    assert refusal(target, run_batch().only(frozenset({METRICS}))).rejected


def test_a_part_of_metrics_that_was_taken_is_not_sent_again(intake, target):
    batch = run_batch()
    stages = tuple(
        replace(point, tags={**point.tags, "stage": f"{number}-{'x' * 1000}"})
        for number in range(100)
        for point in batch.points
    )
    original = intake.answer
    answered = []

    def once(*request):
        answered.append(original(*request) if not answered else 503)
        return answered[-1]

    intake.answer = once
    assert refusal(target, replace(batch, points=stages).only(frozenset({METRICS}))).uncertain
    assert answered[:2] == [202, 503]


def test_an_intake_that_is_away_is_certain_and_one_that_is_silent_is_not(
    intake, refused, silent, tmp_path, monkeypatch
):
    monkeypatch.setattr("batch_observability.export.intake._TIMEOUT_S", 0.2)
    for port, uncertain in ((refused, False), (silent, True)):
        settings = Settings(state_dir=str(tmp_path), agentless_url=f"http://127.0.0.1:{port}")
        error = refusal(AgentlessTarget(intake.environ, settings), run_batch().only(frozenset({METRICS})))
        assert f"http://127.0.0.1:{port}/v1/metrics did not answer" in str(error)
        assert (error.rejected, error.uncertain) == (False, uncertain)


def test_a_redirect_is_not_followed_with_the_key(intake, target):
    intake.statuses = {"traces": [307]}
    assert "307" in str(refusal(target, run_batch().only(frozenset({TRACES}))))
    assert len(intake.requests) == 1


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "DD_API_KEY is not set: without it Datadog takes nothing"),
        ({"DD_API_KEY": "two words"}, "DD_API_KEY is no key"),
        (
            {"DD_API_KEY": secrets.token_hex(16), "DD_SITE": "https://app.datadoghq.eu/"},
            "DD_SITE is 'https://app.datadoghq.eu/': write the site of your organisation, for example datadoghq.eu",
        ),
    ],
)
def test_a_mistake_is_told_with_the_remedy_and_never_the_key(environ, said, tmp_path):
    target = AgentlessTarget(environ, Settings(state_dir=str(tmp_path)))
    error = refusal(target, run_batch().only(frozenset({TRACES})))
    assert said in str(error)
    assert "two words" not in str(error)
    assert environ.get("DD_API_KEY", "?") not in repr(target)


# --- With the spool ----------------------------------------------------------------------------------------------


def test_what_waits_is_sent_once_when_the_intake_is_back_and_the_key_is_nowhere_on_disk(intake, tmp_path):
    intake.statuses = {signal: [403, 403] for signal in EVERYTHING}
    ours = own(intake, tmp_path)
    report = ours.deliver(run_batch())
    assert "check DD_API_KEY" in report.targets["agentless"]
    assert waiting(tmp_path) == ["agentless.logs", "agentless.metrics", "agentless.traces"]
    assert "check DD_API_KEY" in replay(ours).refused["agentless"]
    texts = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert texts
    assert not any(intake.key.encode() in text for text in texts)
    assert replay(ours).sent == {"agentless": 3}
    assert (len(intake.spans), intake.count(FINISHED), len(intake.logs)) == (3, 1, 1)
    assert waiting(tmp_path) == []


def test_many_runs_that_waited_are_all_counted(intake, tmp_path):
    ours = own(intake, tmp_path)
    for _ in range(30):
        ours.keep(run_batch(service="churn").only(frozenset({METRICS})))
    assert replay(ours).sent == {"agentless": 30}
    assert (intake.count(FINISHED, service="churn"), intake.overwritten) == (30, [])


def test_metrics_that_nobody_answered_are_not_sent_twice_and_are_counted_as_uncertain(silent, tmp_path, monkeypatch):
    monkeypatch.setattr("batch_observability.export.intake._TIMEOUT_S", 0.2)
    monkeypatch.setenv("DD_API_KEY", secrets.token_hex(16))
    ours = delivery(tmp_path, "agentless", "spool", agentless_url=f"http://127.0.0.1:{silent}")
    ours.deliver(run_batch().only(frozenset({METRICS, TRACES})))
    assert waiting(tmp_path) == [
        "agentless.metrics",
        "agentless.traces",
        "spool.metrics",
        "spool.metrics",
        "spool.traces",
    ]
    assert dropped(tmp_path) == {"agentless": [("uncertain", 1)], "spool": [("uncertain", 1)]}
