"""
Signals by OTLP to any OpenTelemetry backend, with the SDK's exporters and the standard `OTEL_*` variables.

HTTP is the default; `OTEL_EXPORTER_OTLP_PROTOCOL=grpc`, or port 4317, is served where that exporter is installed (it
comes with Airflow). Metrics are deltas: each run is a process of its own.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from batch_observability.export.otlp_sdk import Resources, logs, metrics, resources, spans
from batch_observability.export.signals import LOGS, METRICS, TRACES, Batch
from batch_observability.export.target import (
    ExportError,
    complaints,
    otlp_endpoint,
    otlp_endpoints,
    otlp_switched_off,
)

_GRPC_PORT = 4317
# Who signs requests by a session of their own (a variable of the SDK) keeps it.
_CREDENTIALS = "_CREDENTIAL_PROVIDER"
# What gRPC says when a connection ends below a request.
_GRPC_BROKEN = (
    *("Socket closed", "Connection reset", "Broken pipe", "Stream removed", "Transport closed", "GOAWAY"),
    *("keepalive", "ping timeout", "recvmsg", "sendmsg", "Connection timed out"),
)


class OtlpTarget:
    """
    An OTLP endpoint for each signal that has one.

    Args:
        environ: the standard `OTEL_*` variables.
    """

    name = "otlp"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._exporters: dict[str, Any] = {}
        # By signal: requests that were sent, and nobody said what became of them. Signals are sent side by side.
        self._unanswered: dict[str, list[str]] = {TRACES: [], METRICS: [], LOGS: []}

    def send(self, batch: Batch) -> None:
        """Send each signal that the batch holds and that has an endpoint."""
        senders: dict[str, tuple[Callable[[Batch, Resources], Any], Any]] = {
            TRACES: (spans, batch.spans),
            METRICS: (metrics, batch.points),
            LOGS: (logs, batch.logs),
        }
        failed, uncertain = {}, False
        for signal, (convert, wanted) in senders.items():
            if wanted and self._is_wanted(signal):
                self._unanswered[signal].clear()
                if reason := self._export(signal, convert, batch):
                    failed[signal] = reason
                    uncertain = uncertain or bool(self._unanswered[signal])
        if failed:
            raise ExportError(failed, uncertain=uncertain)

    def _export(self, signal: str, convert: Callable[[Batch, Resources], Any], batch: Batch) -> str:
        """Send one signal; return why it was not taken, or ""."""
        with complaints("opentelemetry.exporter") as said:
            try:
                result = self._exporter(signal).export(convert(batch, resources())).name
            except Exception as error:
                result = f"{type(error).__name__}: {error}"
        self._unanswered[signal] += filter(_grpc_unanswered, said)
        return "" if result == "SUCCESS" else f"the OTLP endpoint did not take the {signal}: {[result, *said][-1]}"

    def _is_wanted(self, signal: str) -> bool:
        if otlp_endpoints(self._environ):
            return bool(otlp_endpoint(self._environ, signal.upper()))
        # Chosen by BATCHOBS_EXPORT, with no endpoint: the SDK's default is a collector on this host.
        return not otlp_switched_off(self._environ, signal.upper())

    def _exporter(self, signal: str) -> Any:
        if signal not in self._exporters:
            protocol = _protocol(self._environ, signal.upper())
            module, name = {
                TRACES: ("trace_exporter", "OTLPSpanExporter"),
                METRICS: ("metric_exporter", "OTLPMetricExporter"),
                LOGS: ("_log_exporter", "OTLPLogExporter"),
            }[signal]
            package = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{protocol}.{module}")
            for logger in ("grpc.exporter", "http._log_exporter"):
                # The SDK does not repeat a complaint within 20 s, and by it alone we know what became of a request.
                logging.getLogger(f"opentelemetry.exporter.otlp.proto.{logger}").filters.clear()
            # Metrics have no ids: what may have arrived must not be sent again, also not by the exporter itself.
            once = signal == METRICS
            options: dict[str, Any] = {}
            if protocol == "http" and not any(name.endswith(_CREDENTIALS) for name in self._environ):
                options["session"] = _watched_session(self._unanswered[signal], once=once)
            elif once:
                busy = importlib.import_module("grpc").StatusCode.RESOURCE_EXHAUSTED
                options["retryable_error_codes"] = frozenset({busy})
            self._exporters[signal] = getattr(package, name)(**options)
        return self._exporters[signal]


def _protocol(environ: Mapping[str, str], signal: str) -> str:
    said = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if said:
        return "grpc" if said == "grpc" else "http"
    return "grpc" if urlsplit(otlp_endpoint(environ, signal)).port == _GRPC_PORT else "http"


def _watched_session(unanswered: list[str], *, once: bool) -> Any:
    """Make a session that remembers requests without an answer; where no connection was made, nothing was sent."""
    import requests
    from requests.adapters import HTTPAdapter

    class Watch(HTTPAdapter):
        def send(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().send(*args, **kwargs)
            except requests.RequestException as error:
                if _never_connected(error):
                    raise
                unanswered.append(type(error).__name__)
                if once:
                    # The exporter sends again after what it knows as a connection error, and this is none.
                    raise requests.RequestException(f"no answer came, {error}") from error
                raise

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, Watch())
    return session


def _never_connected(error: Exception) -> bool:
    import requests
    from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError, ProxyError, SSLError

    cause = error.args[0] if error.args else None
    if isinstance(cause, MaxRetryError):
        cause = cause.reason
    # A name that cannot be resolved is a NewConnectionError too; an address that makes no sense is a ValueError.
    return isinstance(error, requests.ConnectTimeout | ValueError) or isinstance(
        cause, NewConnectionError | ConnectTimeoutError | ProxyError | SSLError
    )


def _grpc_unanswered(complaint: str) -> bool:
    """Whether gRPC complains of a request that it has sent; a collector that is busy answers UNAVAILABLE as well."""
    return "StatusCode.DEADLINE_EXCEEDED" in complaint or (
        "StatusCode.UNAVAILABLE" in complaint and any(words in complaint for words in _GRPC_BROKEN)
    )
