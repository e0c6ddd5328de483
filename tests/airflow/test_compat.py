"""What is read from Airflow: settings, the place in its trace, its masked secrets."""

from __future__ import annotations

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.log import mask_secret
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from batch_observability.airflow import compat
from batch_observability.ids import derive_trace_id
from tests.airflow import fakes


@pytest.fixture
def instance():
    return fakes.task_instance(BaseOperator(task_id="plain"))


def test_settings_have_defaults(monkeypatch):
    monkeypatch.delenv("BATCHOBS_EXPORT")
    settings = compat.settings()
    assert settings.export == ()
    assert settings.airflow_service == "airflow"


def test_settings_come_from_airflows_section(monkeypatch):
    monkeypatch.delenv("BATCHOBS_EXPORT")
    monkeypatch.setenv("AIRFLOW__BATCH_OBSERVABILITY__EXPORT", "otlp, datadog")
    monkeypatch.setenv("AIRFLOW__BATCH_OBSERVABILITY__SPOOL_MAX_MB", "7")
    assert compat.settings().export == ("otlp", "datadog")
    assert compat.settings().spool_max_mb == 7


def test_settings_come_from_airflow_cfg(monkeypatch):
    from airflow.sdk.configuration import conf

    conf.add_section("batch_observability")
    try:
        conf.set("batch_observability", "airflow_service", "orchestrator")
        assert compat.settings().airflow_service == "orchestrator"
    finally:
        conf.remove_section("batch_observability")


def test_the_environment_goes_before_airflows_section(monkeypatch):
    monkeypatch.setenv("AIRFLOW__BATCH_OBSERVABILITY__MAX_STAGES", "7")
    monkeypatch.setenv("BATCHOBS_MAX_STAGES", "8")
    assert compat.settings().max_stages == 8


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("BATCHOBS_MAX_STAGES", "BATCHOBS_MAX_STAGES"),
        ("AIRFLOW__BATCH_OBSERVABILITY__MAX_STAGES", "[batch_observability] max_stages"),
    ],
)
def test_a_bad_setting_is_one_line_and_has_its_default(monkeypatch, caplog, variable, name):
    monkeypatch.setenv(variable, "many")
    assert compat.settings().max_stages == 1000
    (record,) = (record for record in caplog.records if record.name == "batch_observability")
    message = record.getMessage()
    assert message == f"setting {name} is 'many': write a whole number, 1 or more; the default is used"


def test_the_place_in_the_trace_is_that_of_the_carrier(instance):
    place = compat.trace_parent(instance)
    assert (place.trace_id, place.span_id) == (fakes.TRACE_ID, 0xE653E4F7E89AEC43)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        None,
        7,
        f"00-{'0' * 32}-e653e4f7e89aec43-01",
        f"00-{fakes.TRACE_ID:032x}-{'0' * 16}-01",
        f"00-{fakes.TRACE_ID:032X}-E653E4F7E89AEC43-01",
        f"00-{fakes.TRACE_ID:032x}-e653e4f7e89aec43",
        f"00-{fakes.TRACE_ID:032x}-e653e4f7e89aec43-01\n",
    ],
)
def test_without_a_usable_traceparent_the_trace_derives_from_the_dag_run(instance, traceparent):
    instance.context_carrier = {"traceparent": traceparent}
    place = compat.trace_parent(instance)
    assert place.trace_id == derive_trace_id("airflow.dag_run", "faked", "manual__1")
    assert place.span_id == 0


def test_a_task_of_dag_test_finds_its_dag_run_in_the_database(run_dag):
    from datetime import datetime

    from airflow.sdk import DAG

    with DAG("looked_up", start_date=datetime(2024, 1, 1), schedule=None) as dag:
        BaseOperator(task_id="plain")
    dag_run = run_dag(dag)
    carried = dag_run.context_carrier["traceparent"].split("-")
    found = fakes.task_instance(
        BaseOperator(task_id="plain"), dag_id="looked_up", run_id=dag_run.run_id, context_carrier=None
    )
    assert compat.in_process(found)
    place = compat.trace_parent(found)
    assert (f"{place.trace_id:032x}", f"{place.span_id:016x}") == (carried[1], carried[2])


def test_without_a_database_the_trace_still_derives_from_the_dag_run(instance, monkeypatch):
    def gone(*arguments, **named):
        raise RuntimeError("no database here")

    monkeypatch.setattr("airflow.utils.session.create_session", gone)
    instance.context_carrier = None
    assert compat.trace_parent(instance).trace_id == derive_trace_id("airflow.dag_run", "faked", "manual__1")


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("00", False)])
def test_whether_airflow_keeps_its_spans_is_in_the_carrier(instance, flags, sampled):
    instance.context_carrier = {"traceparent": f"00-{fakes.TRACE_ID:032x}-e653e4f7e89aec43-{flags}"}
    assert compat.is_sampled(instance) is sampled


def test_airflows_worker_span_is_found_if_it_is_current_and_recorded():
    tracer = TracerProvider().get_tracer("test")
    assert compat.recording_worker_span() is None
    with tracer.start_as_current_span("worker.score") as span:
        assert compat.recording_worker_span() == span.get_span_context().span_id
        with tracer.start_as_current_span("mine"):
            assert compat.recording_worker_span() is None
    lost = trace.NonRecordingSpan(span.get_span_context())
    with trace.use_span(lost):
        assert compat.recording_worker_span() is None


@pytest.mark.parametrize(("value", "expected"), [("True", True), ("true", True), ("False", False), (None, False)])
def test_airflows_own_tracing_is_a_setting_of_airflow(monkeypatch, value, expected):
    if value is not None:
        monkeypatch.setenv("AIRFLOW__TRACES__OTEL_ON", value)
    assert compat.airflow_tracing() is expected


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("True", True), ("", False), (None, False)])
def test_a_pod_of_the_kubernetes_executor_is_known_by_its_environment(monkeypatch, value, expected):
    if value is not None:
        monkeypatch.setenv("AIRFLOW_IS_K8S_EXECUTOR_POD", value)
    assert compat.is_kubernetes_pod() is expected


def test_what_airflow_masks_is_masked():
    mask_secret("staple-battery-horse")
    assert compat.redact("a staple-battery-horse b") == "a *** b"
    assert compat.redact("nothing to hide") == "nothing to hide"


def test_the_database_url_is_complete(database):
    assert compat.database_url() == database


# --- Ends -----------------------------------------------------------------------------------------------------------


class Killable(BaseOperator):
    killed = 0

    def on_kill(self):
        type(self).killed += 1
        self.said = "of the operator"


def test_who_is_asked_to_end_tells_it_before_its_operator_does_what_it_does():
    Killable.killed, order = 0, []
    operator = Killable(task_id="killable")
    compat.on_asked_to_end(operator, lambda: order.append(Killable.killed))
    operator.on_kill()
    assert (order, Killable.killed, operator.said) == ([0], 1, "of the operator")
    assert Killable(task_id="another").on_kill.__func__ is Killable.on_kill


def test_an_operator_without_an_on_kill_of_its_own_has_nothing_more_to_do():
    told = []
    operator = BaseOperator(task_id="plain")
    compat.on_asked_to_end(operator, lambda: told.append(1))
    operator.on_kill()
    assert told == [1]


def test_airflow_still_asks_a_task_to_end_by_its_on_kill_and_kills_it_5_s_later():
    """What the outcome `cancelled` builds on; a release may change it."""
    import inspect

    from airflow.sdk.execution_time import supervisor, task_runner

    assert "ti.task.on_kill()" in inspect.getsource(task_runner)
    kill = inspect.signature(supervisor.WatchedSubprocess.kill)
    assert kill.parameters["escalation_delay"].default == compat.KILLED_AFTER_S


def _timeouts():
    from airflow.sdk import exceptions

    class OwnTimeout(exceptions.AirflowSensorTimeout):
        pass

    return [
        exceptions.AirflowTaskTimeout("too long"),
        exceptions.AirflowSensorTimeout("too long"),
        exceptions.TaskDeferralTimeout("too long"),
        OwnTimeout("too long"),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_timeout_of_airflows_is_one(number):
    assert compat.is_timeout(_timeouts()[number])


@pytest.mark.parametrize("error", [None, "AirflowTaskTimeout", TimeoutError("of the user's"), ValueError()])
def test_another_error_is_no_timeout(error):
    assert not compat.is_timeout(error)


@pytest.mark.parametrize(
    ("command", "scheduler", "processor"),
    [
        (["airflow", "scheduler"], True, False),
        (["/usr/bin/airflow", "scheduler", "--skip-serve-logs"], True, False),
        (["airflow", "standalone"], True, True),
        (["airflow", "dag-processor"], False, True),
        (["airflow", "api-server"], False, False),
        (["airflow", "dags", "test", "scheduler"], False, False),
        (["airflow"], False, False),
        ([], False, False),
    ],
)
def test_which_of_airflows_processes_this_is(monkeypatch, command, scheduler, processor):
    monkeypatch.setattr("sys.argv", command)
    assert (compat.is_scheduler(), compat.is_dag_processor()) == (scheduler, processor)


def test_this_host_has_the_name_that_airflow_gives_it():
    from airflow.utils.net import get_hostname

    assert get_hostname() in compat.host_names()
