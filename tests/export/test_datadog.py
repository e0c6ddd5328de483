"""Spans at a real Datadog test agent, and what becomes of them when the Agent is not well."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from batch_observability.config import Settings
from batch_observability.export.signals import METRICS, TRACES
from tests.export.batches import DURATION_NS, ENV, VERSION, run_batch
from tests.export.sender import Order
from tests.live import wait_until
from tests.live.agent import trace_id

# ddtrace takes the end in seconds as a float, which holds Unix times to a quarter of a microsecond.
FLOAT_NS = 250
LOW = (1 << 64) - 1


def arrived(agent, batch):
    """Return the spans of the batch's trace by resource."""
    wanted = batch.spans[0].trace_id & LOW
    spans = wait_until(
        lambda: [span for span in agent.spans() if span["trace_id"] == wanted],
        "the trace is at the agent",
        10,
        agent.spans,
        every=0.05,
    )
    assert len({span["span_id"] for span in spans}) == len(spans)
    return {span["resource"]: span for span in spans}


@pytest.fixture(scope="module")
def batch():
    return run_batch()


@pytest.fixture(scope="module")
def root_batch():
    """A run that has no parent, of another service, as a cron job is."""
    batch = run_batch(service="cron-service", env="")
    run, *stages = batch.spans
    return replace(batch, spans=(replace(run, parent_id=None, error=None), *stages), points=(), events=())


@pytest.fixture(scope="module")
def outcome(agent, dogstatsd, dispatch, batch, root_batch):
    """Send both from one process, whose environment names other values and would drop every trace."""
    return dispatch(
        Order(("datadog",), (batch, root_batch)),
        DD_TRACE_AGENT_URL=agent.apm_url,
        DD_DOGSTATSD_URL=dogstatsd.url,
        DD_ENV=ENV,
        DD_SERVICE="somebody-else",
        DD_VERSION="99",
        DD_TRACE_SAMPLING_RULES='[{"sample_rate": 0}]',
        OTEL_TRACES_EXPORTER="otlp",
    )


@pytest.fixture(scope="module")
def spans(agent, batch, outcome):
    return arrived(agent, batch)


@pytest.fixture(scope="module")
def run_span(spans):
    return spans["dag.täsk"]


def test_a_batch_that_arrives_raises_nothing(outcome):
    assert [result["errors"] for result in outcome["results"]] == [{"datadog": ""}, {"datadog": ""}]
    assert outcome["stderr"] == ""


def test_the_handler_of_sigterm_is_put_back_after_the_import_of_ddtrace(outcome):
    assert outcome["ddtrace"]
    assert outcome["sigterm_kept"]


def test_ids_are_those_of_the_run_with_all_128_bits_of_the_trace(agent, batch, spans, run_span):
    run, outer, inner = batch.spans
    trace = next(trace for trace in agent.traces() if trace[0]["trace_id"] == run.trace_id & LOW)
    assert trace_id(trace) == f"{run.trace_id:032x}"
    assert run_span["span_id"] == run.span_id
    assert {spans["score"]["span_id"], spans["predict"]["span_id"]} == {outer.span_id, inner.span_id}
    assert {span["trace_id"] for span in spans.values()} == {run.trace_id & LOW}


def test_the_run_hangs_under_the_parent_it_names_and_stages_under_each_other(batch, spans, run_span):
    run, outer, _ = batch.spans
    assert run_span["parent_id"] == run.parent_id
    assert spans["score"]["parent_id"] == run.span_id
    assert spans["predict"]["parent_id"] == outer.span_id


def test_a_run_without_a_parent_is_a_root(agent, outcome, root_batch):
    span = arrived(agent, root_batch)["dag.täsk"]
    assert span.get("parent_id", 0) == 0
    assert span["metrics"]["_sampling_priority_v1"] == 2
    assert span["service"] == "cron-service"
    assert span["meta"]["version"] == VERSION
    assert not span.get("error")


def test_starts_and_durations_are_those_of_the_run(batch, spans, run_span):
    assert run_span["start"] == batch.spans[0].start_ns
    assert abs(run_span["duration"] - DURATION_NS) <= FLOAT_NS
    for span, sent in ((spans["score"], batch.spans[1]), (spans["predict"], batch.spans[2])):
        assert span["start"] == sent.start_ns
        assert abs(span["duration"] - (sent.end_ns - sent.start_ns)) <= FLOAT_NS


def test_names_and_unified_service_tags(batch, spans, run_span):
    assert {span["name"] for span in spans.values()} == {"batch_model.run", "batch_model.stage"}
    assert {span["service"] for span in spans.values()} == {batch.service}
    assert {span["meta"]["version"] for span in spans.values()} == {VERSION}
    assert {span["meta"]["env"] for span in spans.values()} == {ENV}


def test_the_run_is_a_measured_consumer_of_type_worker_and_always_kept(spans, run_span):
    assert run_span["type"] == "worker"
    assert run_span["meta"]["span.kind"] == "consumer"
    assert run_span["metrics"]["_dd.measured"] == 1
    assert run_span["metrics"]["_sampling_priority_v1"] == 2
    assert "_dd.measured" not in spans["score"].get("metrics", {})


def test_numbers_are_numeric_and_texts_are_text(run_span):
    assert run_span["metrics"]["batch_model.rows.read"] == 48210
    assert run_span["metrics"]["batch_model.cpu.time"] == 1.25
    assert run_span["meta"]["batch_model.note"] == 'smørrebrød 🚂 "quoted"'
    assert run_span["meta"]["batch_model.flag"] == "True"


def test_an_error_says_type_message_and_stack(spans, run_span):
    assert run_span["error"] == spans["predict"]["error"] == 1
    assert not spans["score"].get("error")
    assert run_span["meta"]["error.type"] == "ValueError"
    assert run_span["meta"]["error.message"] == "no such airport: «XYZ»"
    assert run_span["meta"]["error.stack"].startswith("Traceback:")
    assert "error.stack" not in spans["predict"]["meta"]


def test_events_are_json_that_the_trace_view_reads(batch, run_span):
    sent = batch.spans[0].events
    assert json.loads(run_span["meta"]["events"]) == [
        {"name": event.name, "time_unix_nano": event.time_ns, "attributes": event.attributes} for event in sent
    ]


def test_links_hold_all_bits(batch, run_span):
    (link,) = run_span["span_links"]
    assert (link["trace_id_high"] << 64 | link["trace_id"], link["span_id"]) == batch.spans[0].links[0]


@pytest.fixture(scope="module")
def ways(refused, silent, answering):
    """Return port and timeout by the way in which an Agent is away."""
    return {"refused": (refused, 30), "broken": (answering(traces=500), 30), "silent": (silent, 2)}


@pytest.fixture(scope="module")
def away(dispatch, dogstatsd, ways, tmp_path_factory):
    """
    Deliver two batches from one process to an Agent that is away; side by side, for it is all waiting.

    Returns what came of it by the way in which the Agent is away.
    """

    def deliver(way):
        port, timeout = ways[way]
        settings = Settings(state_dir=str(tmp_path_factory.mktemp(way)), export_timeout=timeout)
        order = Order(("datadog",), (run_batch(name="first"), run_batch(name="second")), settings)
        return dispatch(order, DD_TRACE_AGENT_URL=f"http://127.0.0.1:{port}", DD_DOGSTATSD_URL=dogstatsd.url)

    with ThreadPoolExecutor(len(ways)) as pool:
        return dict(zip(ways, pool.map(deliver, ways), strict=True))


@pytest.mark.parametrize(("way", "reason"), [("refused", "127.0.0.1:"), ("broken", "500")])
def test_spans_that_the_agent_did_not_take_stay_in_the_spool_and_metrics_go(away, way, reason):
    first, _ = away[way]["results"]
    assert first["safe"] == ["datadog.events", "datadog.metrics", "datadog.traces"]
    assert first["left"] == ["datadog.traces"]
    assert first["errors"]["datadog"].startswith("the Datadog Agent did not take the spans: ")
    assert reason in first["errors"]["datadog"]
    assert f"first: {first['errors']['datadog']}" in away[way]["stderr"]


@pytest.mark.parametrize("way", ["refused", "broken"])
def test_every_failure_of_one_process_is_seen_and_not_only_the_first_in_a_minute(away, way):
    _, second = away[way]["results"]
    assert second["errors"]["datadog"]
    assert second["left"] == ["datadog.traces", "datadog.traces"]


def test_an_agent_that_is_silent_is_waited_for_no_longer_than_export_timeout(away):
    first, second = away["silent"]["results"]
    for result, waiting in ((first, 1), (second, 2)):
        assert result["errors"] == {"datadog": "datadog did not answer within 2 s"}
        assert result["left"].count("datadog.traces") == waiting
        # ddtrace alone would wait for 21 s.
        assert result["seconds"] < 8
    assert "first: datadog did not answer within 2 s" in away["silent"]["stderr"]


def test_a_tracer_that_the_user_has_switched_off_sends_no_spans_and_that_is_no_failure(agent, dispatch):
    batch = run_batch()
    order = Order(("datadog",), (batch.only(frozenset({TRACES})),))
    out = dispatch(order, DD_TRACE_AGENT_URL=agent.apm_url, DD_TRACE_ENABLED="false")
    low = batch.spans[0].trace_id & LOW
    assert out["results"][0]["errors"] == {"datadog": ""}
    assert not [span for span in agent.spans() if span["trace_id"] == low]


def test_a_batch_of_metrics_alone_does_not_import_ddtrace(dispatch, dogstatsd):
    batch = run_batch().only(frozenset({METRICS}))
    out = dispatch(Order(("datadog",), (batch,)), DD_DOGSTATSD_URL=dogstatsd.url)
    assert out["results"][0]["errors"] == {"datadog": ""}
    assert not out["ddtrace"]
