"""Which targets are chosen, and the reasons that are given: every row of DESIGN's table."""

from __future__ import annotations

import importlib.util
import logging
import secrets
import socket
import threading

import pytest

from batch_observability.config import Settings
from batch_observability.export import target
from batch_observability.export.agentless import AgentlessTarget
from batch_observability.export.datadog import DatadogTarget
from batch_observability.export.datadog_logs import DatadogLogsTarget
from batch_observability.export.otlp import OtlpTarget
from batch_observability.export.target import ExportError, choose, complaints, installed, make_target, otlp_endpoint

AUTO = Settings()
URL = "http://collector:4318"


@pytest.fixture(autouse=True)
def _no_local_agent(monkeypatch, refused, tmp_path):
    monkeypatch.setattr(target, "AGENT_ADDRESS", ("127.0.0.1", refused))
    monkeypatch.setattr(target, "AGENT_SOCKET", tmp_path / "apm.socket")


@pytest.fixture
def missing(monkeypatch):
    """Return a function that makes these packages appear not to be installed."""

    def hide(*names):
        original = importlib.util.find_spec

        def find_spec(name, package=None):
            if name in names:
                return None
            if name.startswith(tuple(f"{hidden}." for hidden in names)):
                raise ModuleNotFoundError(name)
            return original(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)

    return hide


@pytest.mark.parametrize(
    ("environ", "targets"),
    [
        ({}, ("spool",)),
        ({"DD_TRACE_AGENT_URL": "http://node:8126"}, ("datadog",)),
        ({"DD_AGENT_HOST": "node"}, ("datadog",)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{URL}/v1/traces"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{URL}/v1/metrics"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{URL}/v1/logs"}, ("otlp",)),
        ({"DD_AGENT_HOST": "node", "OTEL_EXPORTER_OTLP_ENDPOINT": URL}, ("datadog", "otlp")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "True"}, ("spool",)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_SDK_DISABLED": "false"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_EXPORTER": "none"}, ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL, "OTEL_TRACES_EXPORTER": "none"}, ("spool",)),
        ({"DD_API_KEY": "not used without agentless"}, ("spool",)),
        ({"DD_TRACE_AGENT_URL": "", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ("spool",)),
    ],
)
def test_targets_are_chosen_by_what_is_configured(environ, targets):
    choice = choose(AUTO, environ)
    assert choice.targets == targets
    assert len(choice.reasons) == (3 if targets == ("spool",) else 2)


def test_each_reason_says_the_variable_and_its_value():
    choice = choose(AUTO, {"DD_AGENT_HOST": "node", "OTEL_EXPORTER_OTLP_ENDPOINT": URL})
    assert choice.reasons == ("datadog: DD_AGENT_HOST is node", f"otlp: the endpoint is {URL}")


def test_with_nothing_configured_the_reasons_say_what_to_set():
    datadog, otlp, spool = choose(AUTO, {}).reasons
    assert "DD_TRACE_AGENT_URL and DD_AGENT_HOST are not set, and no Agent answers on 127.0.0.1:" in datadog
    assert otlp == "otlp: OTEL_EXPORTER_OTLP_ENDPOINT is not set"
    assert spool == "spool: no backend is configured"


def test_the_setting_wins_over_all_that_is_configured():
    choice = choose(Settings(export=("spool", "otlp")), {"DD_AGENT_HOST": "node"})
    assert choice.targets == ("spool", "otlp")
    assert choice.reasons == ("BATCHOBS_EXPORT is spool,otlp",)


def test_an_agent_that_answers_on_this_host_is_taken(answering, monkeypatch):
    port = answering()
    monkeypatch.setattr(target, "AGENT_ADDRESS", ("127.0.0.1", port))
    choice = choose(AUTO, {})
    assert choice.targets == ("datadog",)
    assert choice.reasons[0] == f"datadog: an Agent answers on 127.0.0.1:{port}"


def test_something_else_that_answers_there_is_no_agent(answering, monkeypatch):
    monkeypatch.setattr(target, "AGENT_ADDRESS", ("127.0.0.1", answering(info=404)))
    assert choose(AUTO, {}).targets == ("spool",)


def test_something_that_is_silent_or_speaks_no_http_is_no_agent(silent, monkeypatch):
    monkeypatch.setattr(target, "AGENT_ADDRESS", ("127.0.0.1", silent))
    assert choose(AUTO, {}).targets == ("spool",)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(target, "AGENT_ADDRESS", server.getsockname())

        def babble():
            connection, _ = server.accept()
            connection.recv(4096)
            connection.sendall(b"220 mail.example.com ESMTP\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=babble)
        thread.start()
        assert choose(AUTO, {}).targets == ("spool",)
        thread.join()


def test_an_agent_that_listens_on_its_socket_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("apm.socket")
        choice = choose(AUTO, {})
    assert choice.targets == ("datadog",)
    assert "an Agent listens on " in choice.reasons[0]


@pytest.mark.parametrize("package", ["ddtrace", "datadog"])
def test_without_its_packages_datadog_is_not_chosen_and_the_command_is_named(missing, package):
    missing(package)
    choice = choose(AUTO, {"DD_AGENT_HOST": "node"})
    assert choice.targets == ("spool",)
    assert "pip install 'airflow-batch-observability[datadog]'" in choice.reasons[0]


@pytest.mark.parametrize("package", ["opentelemetry", "opentelemetry.exporter.otlp.proto.http"])
def test_without_its_packages_otlp_is_not_chosen_and_the_command_is_named(missing, package):
    missing(package)
    choice = choose(AUTO, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL})
    assert choice.targets == ("spool",)
    assert "pip install 'airflow-batch-observability[otlp]'" in choice.reasons[1]


def test_the_spool_needs_nothing():
    assert installed("spool")
    assert installed("datadog")
    assert installed("otlp")


@pytest.mark.parametrize(
    ("environ", "targets"),
    [
        # Airflow sends by OTLP to the Agent's own intake, as we then do: one way into one backend.
        ({"DD_AGENT_HOST": "node", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://node:4318"}, ("otlp",)),
        ({"DD_TRACE_AGENT_URL": "http://node:8126", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://node:4318"}, ("otlp",)),
        (
            {"DD_TRACE_AGENT_URL": "http://localhost:8126", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
            ("otlp",),
        ),
        (
            {"DD_TRACE_AGENT_URL": "unix:///var/run/apm.socket", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1]:4318"},
            ("otlp",),
        ),
        # Another backend: both, each with whole traces.
        ({"DD_AGENT_HOST": "node", "OTEL_EXPORTER_OTLP_ENDPOINT": URL}, ("datadog", "otlp")),
        ({"DD_TRACE_AGENT_URL": "unix:///var/run/apm.socket", "OTEL_EXPORTER_OTLP_ENDPOINT": URL}, ("datadog", "otlp")),
    ],
)
def test_with_airflows_tracing_spans_do_not_go_to_one_agent_twice(environ, targets):
    assert choose(AUTO, environ, airflow_tracing=True).targets == targets
    assert choose(AUTO, environ, airflow_tracing=False).targets == ("datadog", "otlp")


def test_with_airflows_tracing_an_otlp_endpoint_that_takes_no_traces_leaves_them_to_the_agent():
    environ = {"DD_AGENT_HOST": "localhost", "OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_TRACES_EXPORTER": "none"}
    assert "datadog" in choose(AUTO, environ, airflow_tracing=True).targets


def test_an_endpoint_of_the_signal_comes_before_the_common_one():
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": URL,
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs",
        "OTEL_METRICS_EXPORTER": "None",
    }
    assert [otlp_endpoint(environ, signal) for signal in ("TRACES", "METRICS", "LOGS")] == [URL, "", "http://logs"]
    assert otlp_endpoint({}, "TRACES") == ""


AGENTLESS = Settings(agentless=True)


@pytest.mark.parametrize(
    ("environ", "targets", "reason"),
    [
        (
            {"DD_API_KEY": "k"},
            ("agentless",),
            "BATCHOBS_AGENTLESS and DD_API_KEY are set, and the intake is https://otlp.datadoghq.com",
        ),
        ({"DD_API_KEY": "k", "DD_SITE": "us5.datadoghq.com"}, ("agentless",), "is https://otlp.us5.datadoghq.com"),
        ({}, ("spool",), "DD_API_KEY is not set: without it Datadog takes nothing"),
        ({"DD_API_KEY": "two words"}, ("spool",), "DD_API_KEY is no key"),
        ({"DD_API_KEY": "k", "DD_SITE": "EU"}, ("spool",), "DD_SITE is 'EU': write the site of your organisation"),
        ({"DD_API_KEY": "k", "OTEL_SDK_DISABLED": "true"}, ("spool",), "OTEL_SDK_DISABLED is true"),
        ({"DD_API_KEY": "k", "DD_AGENT_HOST": "node"}, ("datadog",), "not needed: signals go to datadog"),
        ({"DD_API_KEY": "k", "OTEL_EXPORTER_OTLP_ENDPOINT": URL}, ("otlp",), "not needed: signals go to otlp"),
    ],
)
def test_with_a_key_only_and_agentless_on_all_goes_to_datadogs_intake(environ, targets, reason):
    choice = choose(AGENTLESS, environ)
    assert choice.targets == targets
    (line,) = [line for line in choice.reasons if line.startswith("agentless: ")]
    assert reason in line
    assert "two words" not in " ".join(choice.reasons)


def test_another_url_of_the_intake_is_told_without_its_password():
    settings = Settings(agentless=True, agentless_url=f"https://me:{secrets.token_hex(8)}@proxy/otlp")
    reasons = choose(settings, {"DD_API_KEY": "k"}).reasons
    assert reasons[-1].endswith("the intake is https://me:***@proxy/otlp")


def test_where_a_key_waits_for_agentless_the_reason_says_so():
    choice = choose(AUTO, {"DD_API_KEY": "k"})
    assert choice.targets == ("spool",)
    assert choice.reasons[-1] == "spool: no backend is configured; for DD_API_KEY set BATCHOBS_AGENTLESS=true"


def test_without_its_packages_agentless_is_not_chosen_and_the_command_is_named(missing):
    missing("opentelemetry")
    choice = choose(AGENTLESS, {"DD_API_KEY": "k"})
    assert choice.targets == ("spool",)
    assert "pip install 'airflow-batch-observability[agentless]'" in choice.reasons[2]


SHIPPING = Settings(ship_logs=True)
BOTH = Settings(ship_logs=True, agentless=True)
LOGS_BY_OTLP = "datadog-logs: log lines go by OTLP to http://collector:4318"


@pytest.mark.parametrize(
    ("settings", "environ", "targets", "reason"),
    [
        (SHIPPING, {"DD_AGENT_HOST": "node", "DD_API_KEY": "k"}, ("datadog", "datadog-logs"), "DD_API_KEY are set"),
        (SHIPPING, {"DD_API_KEY": "k"}, ("spool", "datadog-logs"), "DD_API_KEY are set"),
        (SHIPPING, {"DD_AGENT_HOST": "node"}, ("datadog",), "DD_API_KEY is not set, so log lines are not sent"),
        (SHIPPING, {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "DD_API_KEY": "k"}, ("otlp",), LOGS_BY_OTLP),
        (
            SHIPPING,
            {"OTEL_EXPORTER_OTLP_ENDPOINT": URL, "OTEL_LOGS_EXPORTER": "none", "DD_API_KEY": "k"},
            ("otlp", "datadog-logs"),
            "DD_API_KEY are set",
        ),
        (BOTH, {"DD_API_KEY": "k"}, ("agentless",), "datadog-logs: log lines go by OTLP to https://otlp.datadoghq.com"),
        (
            BOTH,
            {"DD_API_KEY": "k", "OTEL_LOGS_EXPORTER": "none"},
            ("agentless", "datadog-logs"),
            "BATCHOBS_SHIP_LOGS and DD_API_KEY are set",
        ),
        (AUTO, {"DD_AGENT_HOST": "node", "DD_API_KEY": "k"}, ("datadog",), "datadog: DD_AGENT_HOST is node"),
        (Settings(ship_logs=True, export=("datadog-logs",)), {}, ("datadog-logs",), "BATCHOBS_EXPORT is datadog-logs"),
    ],
)
def test_log_lines_go_to_datadogs_intake_where_that_is_wanted_and_nobody_else_takes_them(
    settings, environ, targets, reason
):
    choice = choose(settings, environ)
    assert choice.targets == targets
    assert any(reason in line for line in choice.reasons)


def test_targets_are_made_by_name():
    assert isinstance(make_target("datadog-logs", {}, AUTO), DatadogLogsTarget)
    assert isinstance(make_target("datadog", {}, AUTO), DatadogTarget)
    assert isinstance(make_target("otlp", {}, AUTO), OtlpTarget)
    assert isinstance(make_target("agentless", {}, AUTO), AgentlessTarget)


def test_an_export_error_says_each_reason_once():
    error = ExportError({"metrics": "nobody there", "events": "nobody there", "traces": "too large"})
    assert str(error) == "nobody there; too large"
    assert error.signals == {"metrics", "events", "traces"}


def test_complaints_of_this_thread_are_collected():
    name = "some.exporter"
    logger = logging.getLogger(f"{name}.http")
    with complaints(name) as found:
        logger.warning("refused by %s", "node")
        logger.debug("not this")
        other = threading.Thread(target=logger.warning, args=("of another thread",))
        other.start()
        other.join()
    assert found == ["refused by node"]
