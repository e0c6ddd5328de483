"""
`batchobs doctor`: where signals go, why, and whether they arrive.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import secrets
import sys
import threading
import time
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from batch_observability import config, schema
from batch_observability._version import __version__
from batch_observability.context import CHANNEL_VARIABLE, RUN_VARIABLE
from batch_observability.export.log_file import append_log
from batch_observability.export.signals import LOGS, METRICS, TRACES, Batch, LogRecord, Point, Span
from batch_observability.export.spool import Spool
from batch_observability.export.target import INSTALL, Choice, ExportError, choose, installed, make_target, taken_by
from batch_observability.ids import hex_trace_id
from batch_observability.ledger.address import shown
from batch_observability.ledger.store import Ledger, LedgerError
from batch_observability.usage import host_name

_SERVICE = "batchobs-doctor"
_AGENTLESS = "set DD_API_KEY and DD_SITE to those of your organisation, or send to an Agent or a collector"
_REMEDIES = {
    ("datadog", TRACES): "start the Agent, or set DD_TRACE_AGENT_URL or DD_AGENT_HOST to where it is",
    ("datadog", METRICS): "switch DogStatsD on in the Agent, or set DD_DOGSTATSD_URL to where it is",
    ("datadog", LOGS): "make the state folder writable, or set BATCHOBS_STATE_DIR to one that is",
    ("otlp", TRACES): "start the collector, or set OTEL_EXPORTER_OTLP_ENDPOINT to where it is",
    ("otlp", METRICS): "let the collector take metrics, or set OTEL_METRICS_EXPORTER=none",
    ("otlp", LOGS): "let the collector take logs, or set OTEL_LOGS_EXPORTER=none",
    **{("agentless", signal): _AGENTLESS for signal in (TRACES, METRICS, LOGS)},
    ("datadog-logs", LOGS): "set DD_API_KEY and DD_SITE to those of your organisation, or BATCHOBS_SHIP_LOGS=false",
}
_SENT = {
    "datadog": (TRACES, METRICS),
    "otlp": (TRACES, METRICS, LOGS),
    "agentless": (TRACES, METRICS, LOGS),
    "datadog-logs": (LOGS,),
}


@dataclass(frozen=True)
class Finding:
    """What became of one signal at one target; `problem` and `remedy` are "" if it was taken."""

    target: str
    signal: str
    problem: str = ""
    remedy: str = ""


def add_parser(commands: Any) -> None:
    """Add `doctor`; it sets `run`, which takes the options and returns the exit code."""
    doctor = commands.add_parser(
        "doctor",
        help="say where signals go and why, and send one of each to prove it",
        description="Say which targets apply and why, and send one span, metric and log to each for real. "
        "The exit code is 0 only if every target took them.",
    )
    doctor.add_argument("--timeout", type=_timeout, default=15.0, metavar="SECONDS", help="for each target (15)")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(run=lambda options: diagnose(options.timeout, as_json=options.json))


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: write a number of seconds above 0 and up to 3600")
    return seconds


def diagnose(timeout_s: float, *, as_json: bool) -> int:
    """
    Say what applies and why, send one of each, and print what happened.

    Returns:
        0 if every target took everything, else 1.
    """
    for name in ("ddtrace.internal.writer", "opentelemetry.exporter"):
        # What they complain of is told in our words.
        logging.getLogger(name).propagate = False
    settings = config.load(section=lambda key: config.airflow_option(config.SECTION, key))
    tracing = (config.airflow_option("traces", "otel_on") or "").lower() in ("true", "t", "1")
    choice = choose(settings, os.environ, airflow_tracing=tracing)
    trace_id = (int(time.time()) << 96) | secrets.randbits(64) | 1
    batch = _batch(trace_id)
    # The file is told apart from the Agent: it is what an Agent tails, with any target.
    findings = [finding for name in choice.targets for finding in _try(name, batch, settings, timeout_s)]
    findings.append(_try_ledger(settings))
    facts = _facts(settings)
    _print_json(facts, choice, trace_id, findings) if as_json else _print_text(facts, choice, trace_id, findings)
    return 1 if any(finding.problem for finding in findings) else 0


def _batch(trace_id: int) -> Batch:
    now_ns, span_id = time.time_ns(), secrets.randbits(63) | 1
    env = config.environment()
    tags = {schema.TAG_SERVICE: _SERVICE, schema.TAG_ENV: env, schema.TAG_REASON: "doctor"}
    span = Span(
        operation=schema.CHECK,
        resource="doctor",
        service=_SERVICE,
        version=__version__,
        trace_id=trace_id,
        span_id=span_id,
        parent_id=None,
        start_ns=now_ns - 1_000_000,
        end_ns=now_ns,
        attributes={schema.HOST_NAME: host_name()},
    )
    attributes = {schema.LOG_TRACE_ID: hex_trace_id(trace_id), schema.LOG_SPAN_ID: str(span_id)}
    record = LogRecord(now_ns, "info", "batchobs doctor was here", trace_id, span_id, attributes)
    # Nothing was dropped: a count of 0 changes no graph.
    point = Point(schema.TELEMETRY_DROPPED, 0, {name: value for name, value in tags.items() if value})
    return Batch(_SERVICE, __version__, env, "doctor", spans=(span,), points=(point,), logs=(record,))


def _try(name: str, batch: Batch, settings: config.Settings, timeout_s: float) -> list[Finding]:
    if name == "spool":
        return _try_spool(batch, settings)
    if not installed(name):
        problem = "its packages are missing"
        return [Finding(name, "all", problem, INSTALL.format(extra=name))]
    findings = _try_backend(name, batch, settings, timeout_s)
    if name == "datadog":
        try:
            append_log(settings.state_path / "logs", batch)
        except OSError as error:
            findings.append(Finding(name, LOGS, str(error), _REMEDIES[name, LOGS]))
        else:
            findings.append(Finding(name, LOGS))
    return findings


def _try_backend(name: str, batch: Batch, settings: config.Settings, timeout_s: float) -> list[Finding]:
    result: dict[str, Any] = {}
    environ = dict(os.environ)

    def send() -> None:
        try:
            target = make_target(name, environ, settings)
            target.send(batch.only(taken_by(name)))
        except Exception as error:
            result["error"] = error
        result["done"] = True

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if "done" not in result:
        result["error"] = TimeoutError(f"no answer within {timeout_s:g} s")
    error = result.get("error")
    sent = _SENT[name]
    reasons = error.reasons if isinstance(error, ExportError) else dict.fromkeys(sent if error else (), str(error))
    return [
        Finding(name, signal, reasons[signal], _REMEDIES[name, signal]) if signal in reasons else Finding(name, signal)
        for signal in sent
    ]


def _try_spool(batch: Batch, settings: config.Settings) -> list[Finding]:
    spool = Spool(settings.state_path / "spool", settings.spool_max_mb, settings.spool_max_hours)
    try:
        entries = spool.put(batch, {"spool": taken_by("spool")}, None)
    except OSError as error:
        return [Finding("spool", "all", str(error), "make it writable, or set BATCHOBS_STATE_DIR to a folder that is")]
    for entry in entries:
        entry.remove()
    return [Finding("spool", entry.signal) for entry in entries]


def _try_ledger(settings: config.Settings) -> Finding:
    if not settings.ledger_url and not (settings.state_path / "ledger.db").exists():
        # It is made by the first run, and is to belong to whoever runs it.
        return Finding("ledger", "rows")
    try:
        Ledger(settings.ledger, settings.ledger_timeout).info()
    except LedgerError as error:
        problem, _, remedy = str(error).rpartition(": ")
        return Finding("ledger", "rows", problem, remedy)
    return Finding("ledger", "rows")


def _facts(settings: config.Settings) -> dict[str, Any]:
    plugins = [point.value for point in entry_points(group="airflow.plugins") if point.name == "batch_observability"]
    airflow = "not installed"
    if find_spec("airflow"):
        airflow = "installed, the plugin is found by its entry point" if plugins else "installed, no plugin entry point"
    return {
        "version": __version__,
        "python": platform.python_version(),
        "host": host_name(),
        "airflow": airflow,
        "state_folder": str(settings.state_path),
        "ledger": shown(settings.ledger),
        "misspelt": [
            name for name in config.unknown_variables(os.environ) if name not in (CHANNEL_VARIABLE, RUN_VARIABLE)
        ],
    }


def _print_json(facts: dict[str, Any], choice: Choice, trace_id: int, findings: list[Finding]) -> None:
    document = {
        **facts,
        "targets": choice.targets,
        "reasons": choice.reasons,
        "trace_id": hex_trace_id(trace_id),
        "findings": [asdict(finding) for finding in findings],
    }
    print(json.dumps(document, indent=2))  # noqa: T201


def _print_text(facts: dict[str, Any], choice: Choice, trace_id: int, findings: list[Finding]) -> None:
    good, bad = ("✓", "✗") if (sys.stdout.encoding or "").lower().startswith("utf") else ("ok", "NO")
    lines = [
        f"batchobs {facts['version']}, Python {facts['python']}, host {facts['host']}",
        f"  airflow       {facts['airflow']}",
        f"  state folder  {facts['state_folder']}",
        f"  ledger        {facts['ledger']}",
        *(f"  {name} is no setting of ours: is it misspelt?" for name in facts["misspelt"]),
        "",
        f"Signals go to {', '.join(choice.targets)}, because",
        *(f"  {reason}" for reason in choice.reasons),
        "",
        f"Sent one span, metric and log, trace {hex_trace_id(trace_id)}:",
    ]
    width = max(8, *(len(finding.target) for finding in findings))
    for finding in findings:
        lines.append(f"  {bad if finding.problem else good} {finding.target:{width}} {finding.signal}")
        if finding.problem:
            lines += [f"      {finding.problem}", f"      -> {finding.remedy}"]
    print("\n".join(lines))  # noqa: T201
