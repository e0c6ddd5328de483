"""
What every target is, and how one is chosen: by `BATCHOBS_EXPORT`, or by what is configured or answers.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from batch_observability.config import Settings
from batch_observability.export.intake import KEY, IntakeError, api_key, otlp_address
from batch_observability.export.signals import EVENTS, LOGS, METRICS, TRACES, Batch
from batch_observability.redact import redact_text

AGENT_ADDRESS = ("127.0.0.1", 8126)
AGENT_SOCKET = Path("/var/run/datadog/apm.socket")
_OTLP_SIGNALS = ("TRACES", "METRICS", "LOGS")
INSTALL = "pip install 'airflow-batch-observability[{extra}]'"


class ExportError(Exception):
    """
    A target did not take all of a batch.

    Args:
        reasons: for each signal that it did not take, one line that says why.
        uncertain: nobody knows whether it has arrived.
        rejected: it will never be taken, however often it is sent.
    """

    def __init__(self, reasons: Mapping[str, str], *, uncertain: bool = False, rejected: bool = False) -> None:
        super().__init__("; ".join(dict.fromkeys(reasons.values())))
        self.reasons = dict(reasons)
        self.uncertain = uncertain
        self.rejected = rejected

    @property
    def signals(self) -> frozenset[str]:
        """The signals that it did not take."""
        return frozenset(self.reasons)


class Target(Protocol):
    """Somewhere that signals go."""

    name: str

    def send(self, batch: Batch) -> None:
        """
        Send what is in a batch; it has arrived when this returns.

        Raises:
            ExportError: naming the signals that were not taken.
        """


# What each target takes, in groups that are sent by themselves: one may have to wait while another arrives. Known
# without importing a target: nothing heavy stands between a run's end and its signals on disk.
GROUPS: dict[str, tuple[frozenset[str], ...]] = {
    "datadog": (frozenset({METRICS, EVENTS}), frozenset({TRACES})),
    "otlp": (frozenset({METRICS}), frozenset({TRACES}), frozenset({LOGS})),
    "agentless": (frozenset({METRICS}), frozenset({TRACES}), frozenset({LOGS})),
    "datadog-logs": (frozenset({LOGS}),),
    "spool": (frozenset({TRACES, METRICS, LOGS, EVENTS}),),
}


def make_target(name: str, environ: Mapping[str, str], settings: Settings) -> Target:
    """
    Make a target; this imports what it needs.

    Args:
        name: of the target.
        environ: the environment before any target was made: ddtrace's is changed in the process's own.
        settings: of this package.

    Raises:
        ImportError: if the packages of the target are missing.
    """
    if name == "datadog":
        from batch_observability.export.datadog import DatadogTarget

        return DatadogTarget(os.environ)
    if name == "datadog-logs":
        from batch_observability.export.datadog_logs import DatadogLogsTarget

        return DatadogLogsTarget(environ)
    if name == "agentless":
        from batch_observability.export.agentless import AgentlessTarget

        return AgentlessTarget(environ, settings)
    from batch_observability.export.otlp import OtlpTarget

    return OtlpTarget(environ)


def taken_by(target: str) -> frozenset[str]:
    """Return the signals that a target takes."""
    return frozenset().union(*GROUPS[target])


@dataclass(frozen=True)
class Choice:
    """The targets by name, and a line for each of the backends and the outcome that says why."""

    targets: tuple[str, ...]
    reasons: tuple[str, ...]


def choose(settings: Settings, environ: Mapping[str, str], *, airflow_tracing: bool = False) -> Choice:
    """
    Choose targets.

    Args:
        settings: `export` wins over everything else.
        environ: the standard `DD_*` and `OTEL_*` variables.
        airflow_tracing: Airflow sends spans of its own to the OTLP endpoint.
    """
    if settings.export:
        return Choice(settings.export, (f"BATCHOBS_EXPORT is {','.join(settings.export)}",))
    datadog, datadog_reason = _datadog(environ)
    otlp, otlp_reason = _otlp(environ)
    if datadog and otlp and airflow_tracing and _same_host(environ):
        # The endpoint is the Agent's own OTLP intake: sending both ways would double every span in one backend.
        datadog = False
        datadog_reason = "Airflow's own tracing goes to this Agent by OTLP, and so does ours"
    targets = tuple(name for name, chosen in (("datadog", datadog), ("otlp", otlp)) if chosen)
    reasons = [f"datadog: {datadog_reason}", f"otlp: {otlp_reason}"]
    if settings.agentless:
        chosen, reason = _agentless(settings, environ, targets)
        targets = ("agentless",) if chosen else targets
        reasons.append(f"agentless: {reason}")
    if not targets:
        targets = ("spool",)
        hint = environ.get(KEY) and not settings.agentless
        reasons.append(f"spool: no backend is configured{f'; for {KEY} set BATCHOBS_AGENTLESS=true' if hint else ''}")
    if settings.ship_logs:
        intake, intake_reason = _datadog_logs(settings, environ, targets)
        targets = (*targets, "datadog-logs") if intake else targets
        reasons.append(f"datadog-logs: {intake_reason}")
    return Choice(targets, tuple(reasons))


def installed(target: str) -> bool:
    """Whether the packages that a target needs are installed."""
    needed = {
        "datadog": ("ddtrace", "datadog"),
        "otlp": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"),
        "agentless": ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.common"),
    }
    try:
        return all(importlib.util.find_spec(module) for module in needed.get(target, ()))
    except ModuleNotFoundError:
        return False


def tracing_disabled(environ: Mapping[str, str]) -> bool:
    """Whether the user has switched Datadog's tracing off."""
    return environ.get("DD_TRACE_ENABLED", "").strip().lower() in ("false", "0")


def otlp_endpoint(environ: Mapping[str, str], signal: str) -> str:
    """Return the endpoint variable's value that a signal (`TRACES`, `METRICS`, `LOGS`) goes to, or ""."""
    if otlp_switched_off(environ, signal):
        return ""
    return environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")


def otlp_switched_off(environ: Mapping[str, str], signal: str) -> bool:
    """Whether the user wants no such signal (`TRACES`, `METRICS`, `LOGS`) by OTLP."""
    return environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() == "none"


def otlp_endpoints(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the endpoint of each signal that has one."""
    return {signal: endpoint for signal in _OTLP_SIGNALS if (endpoint := otlp_endpoint(environ, signal))}


def _datadog(environ: Mapping[str, str]) -> tuple[bool, str]:
    if tracing_disabled(environ):
        return False, "DD_TRACE_ENABLED is false"
    variable = next((name for name in ("DD_TRACE_AGENT_URL", "DD_AGENT_HOST") if environ.get(name)), None)
    if variable:
        reason = f"{variable} is {environ[variable]}"
    elif AGENT_SOCKET.is_socket():
        reason = f"an Agent listens on {AGENT_SOCKET}"
    elif _agent_answers():
        reason = "an Agent answers on {}:{}".format(*AGENT_ADDRESS)
    else:
        return (
            False,
            "DD_TRACE_AGENT_URL and DD_AGENT_HOST are not set, and no Agent answers on {}:{}".format(*AGENT_ADDRESS),
        )
    if not installed("datadog"):
        return False, f"{reason}, but ddtrace is missing: {INSTALL.format(extra='datadog')}"
    return True, reason


def _otlp(environ: Mapping[str, str]) -> tuple[bool, str]:
    if _sdk_disabled(environ):
        return False, "OTEL_SDK_DISABLED is true"
    endpoints = list(otlp_endpoints(environ).values())
    if not endpoints:
        return False, "OTEL_EXPORTER_OTLP_ENDPOINT is not set"
    if not installed("otlp"):
        return False, f"an endpoint is set, but the exporter is missing: {INSTALL.format(extra='otlp')}"
    return True, f"the endpoint is {endpoints[0]}"


def _sdk_disabled(environ: Mapping[str, str]) -> bool:
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _agentless(settings: Settings, environ: Mapping[str, str], others: Sequence[str]) -> tuple[bool, str]:
    if others:
        return False, f"BATCHOBS_AGENTLESS is set, and not needed: signals go to {' and '.join(others)}"
    if _sdk_disabled(environ):
        return False, "OTEL_SDK_DISABLED is true"
    try:
        api_key(environ)
        url = otlp_address(environ, settings.agentless_url)
    except IntakeError as error:
        return False, str(error)
    if not installed("agentless"):
        return False, f"{KEY} is set, but OpenTelemetry is missing: {INSTALL.format(extra='agentless')}"
    return True, f"BATCHOBS_AGENTLESS and {KEY} are set, and the intake is {redact_text(url)}"


def _datadog_logs(settings: Settings, environ: Mapping[str, str], targets: Sequence[str]) -> tuple[bool, str]:
    endpoint = otlp_endpoint(environ, "LOGS") if "otlp" in targets else ""
    if "agentless" in targets and not otlp_switched_off(environ, "LOGS"):
        endpoint = otlp_address(environ, settings.agentless_url)
    if endpoint:
        return False, f"log lines go by OTLP to {redact_text(endpoint)}"
    if not environ.get(KEY, "").strip():
        return False, f"{KEY} is not set, so log lines are not sent"
    return True, f"BATCHOBS_SHIP_LOGS and {KEY} are set"


def _same_host(environ: Mapping[str, str]) -> bool:
    agent_url = environ.get("DD_TRACE_AGENT_URL")
    agent = urlsplit(agent_url).hostname if agent_url else environ.get("DD_AGENT_HOST", AGENT_ADDRESS[0])
    local = {"localhost", "127.0.0.1", "::1", None}
    endpoint = otlp_endpoint(environ, "TRACES")
    collector = urlsplit(endpoint).hostname
    return bool(endpoint) and (agent == collector or {agent, collector} <= local)


def _agent_answers() -> bool:
    import http.client

    connection = http.client.HTTPConnection(*AGENT_ADDRESS, timeout=0.5)
    try:
        connection.request("GET", "/info")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def complaints(name: str) -> Iterator[list[str]]:
    """
    Collect the warnings that this thread logs below a logger.

    Both exporters log why a delivery failed, and say it nowhere else.
    """
    found: list[str] = []
    thread = threading.get_ident()

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                found.append(record.getMessage())

    logger, handler = logging.getLogger(name), Collect(level=logging.WARNING)
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
