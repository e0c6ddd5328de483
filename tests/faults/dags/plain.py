"""
Plain ddtrace and plain OpenTelemetry, as their documentation says and as a careful user writes it.

All of it is made in the task process, after the fork: a span around the work, two counters, the outcome as far as the
task itself can know it, and a flush at the end, as Airflow ends the process at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SPAN = "batch.job"
STARTED, FINISHED = "job.started", "job.finished"
OTLP_URL = os.environ["FAULTS_OTLP_URL"]


def outcome_of(context: Any, error: BaseException | None) -> str:
    """Return what a careful user makes of the end of the work; "" if it is deferred."""
    from airflow.sdk.exceptions import AirflowSkipException, AirflowTaskTimeout, TaskDeferred

    match error:
        case None:
            return "success"
        case TaskDeferred():
            return ""
        case AirflowSkipException():
            return "skipped"
        case AirflowTaskTimeout():
            return "timed_out"
    ti = context["ti"]
    return "retrying" if ti.try_number <= ti.max_tries else "failed"


@contextmanager
def ddtrace(context: Any) -> Iterator[None]:
    """A span of ddtrace, counters by DogStatsD."""
    from datadog.dogstatsd import DogStatsd
    from ddtrace.trace import tracer

    statsd, tags = DogStatsd(), [f"dag_id:{context['ti'].dag_id}"]
    error: BaseException | None = None
    try:
        with tracer.trace(SPAN, service="plain", resource=context["ti"].dag_id) as span:
            span.set_tag("run_id", str(context["ti"].id))
            statsd.increment(STARTED, tags=tags)
            try:
                yield
            except BaseException as raised:
                error = raised
                raise
            finally:
                if outcome := outcome_of(context, error):
                    span.set_tag("outcome", outcome)
                    statsd.increment(FINISHED, tags=[*tags, f"outcome:{outcome}"])
    finally:
        tracer.flush()
        statsd.flush()


@contextmanager
def otel(context: Any) -> Iterator[None]:
    """A span of OpenTelemetry and its counters, both by OTLP."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import Counter, MeterProvider
    from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    resource = Resource.create({"service.name": "plain"})
    # Airflow's context is current here and says "not sampled": the default sampler would drop every span.
    tracers = TracerProvider(ALWAYS_ON, resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{OTLP_URL}/v1/traces")))
    delta = {Counter: AggregationTemporality.DELTA}
    exporter = OTLPMetricExporter(f"{OTLP_URL}/v1/metrics", preferred_temporality=delta)
    meters = MeterProvider([PeriodicExportingMetricReader(exporter)], resource=resource)
    meter, tags = meters.get_meter("plain"), {"dag_id": context["ti"].dag_id}
    error: BaseException | None = None
    try:
        with tracers.get_tracer("plain").start_as_current_span(SPAN) as span:
            span.set_attributes({"run_id": str(context["ti"].id), **tags})
            meter.create_counter(STARTED).add(1, tags)
            try:
                yield
            except BaseException as raised:
                error = raised
                raise
            finally:
                if outcome := outcome_of(context, error):
                    span.set_attribute("outcome", outcome)
                    meter.create_counter(FINISHED).add(1, {**tags, "outcome": outcome})
    finally:
        tracers.shutdown()
        meters.shutdown()
