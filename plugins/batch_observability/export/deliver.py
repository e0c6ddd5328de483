"""
Deliver a batch: first to disk, then to every target, each within its time; what was taken leaves the disk.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from batch_observability import schema
from batch_observability.config import Settings
from batch_observability.export.signals import EVENTS, LOGS, METRICS, TRACES, Batch, LogRecord, Point
from batch_observability.export.spool import Entry, Spool
from batch_observability.export.target import INSTALL, Choice, ExportError, Target

log = logging.getLogger("batch_observability.export")

_ALL = frozenset({TRACES, METRICS, LOGS, EVENTS})
_LOG_BYTES = 50_000_000


@dataclass
class Report:
    """What became of a batch, by target: "" if it was taken, else one line that says why not."""

    targets: dict[str, str] = field(default_factory=dict)


class Delivery:
    """
    Delivers batches to the chosen targets. One for each process; targets are made when first needed.

    Args:
        settings: bounds and folders.
        choice: the targets.
    """

    def __init__(self, settings: Settings, choice: Choice) -> None:
        self._settings = settings
        self._choice = choice
        self._spool = Spool(settings.state_path / "spool", settings.spool_max_mb)
        self._targets: dict[str, Target] = {}
        self._environ = dict(os.environ)

    def deliver(self, batch: Batch, on_safe: Callable[[], None] = lambda: None) -> Report:
        """
        Deliver a batch; `on_safe` is called once it is on disk, or cannot be.

        Never raises: what a target does not take stays in the spool, and the report says why.
        """
        _attempt("the log file", lambda: append_log(self._settings.state_path / "logs", batch))
        entries: dict[str, Entry] = {}
        for name in self._choice.targets:
            _attempt("the spool", lambda name=name: entries.update({name: self._keep(name, batch)}))  # type: ignore[misc]  # a lambda's default
        on_safe()
        report = Report()
        waiting = {name: self._start(name, batch, entries, report) for name in self._choice.targets if name != "spool"}
        give_up = time.monotonic() + self._settings.export_timeout
        for name, thread in waiting.items():
            thread.join(max(give_up - time.monotonic(), 0))
            if thread.is_alive():
                report.targets[name] = f"{name} did not answer within {self._settings.export_timeout:g} s"
                log.warning("%s: %s", batch.name, report.targets[name])
        if "spool" in self._choice.targets:
            report.targets["spool"] = "" if "spool" in entries else f"{self._spool.folder} cannot be written"
        return report

    def _keep(self, name: str, batch: Batch) -> Entry:
        signals = _ALL if name == "spool" else _target_signals(name)
        entry = self._spool.put(name, batch.only(signals))
        if entry.dropped:
            log.warning("the spool is full: %d of the oldest files were dropped", entry.dropped)
            tags = {schema.TAG_SERVICE: batch.service, schema.TAG_REASON: "spool_full"}
            dropped = Batch(
                batch.service,
                batch.version,
                batch.env,
                "telemetry-dropped",
                points=(Point(schema.TELEMETRY_DROPPED, entry.dropped, tags),),
            )
            self._spool.put(name, dropped)
        return entry

    def _start(self, name: str, batch: Batch, entries: dict[str, Entry], report: Report) -> threading.Thread:
        def send() -> None:
            try:
                target = self._targets.get(name) or make_target(name, self._environ)
                self._targets[name] = target
                target.send(batch.only(target.signals))
            except ExportError as error:
                failed, reason = error.signals, str(error)
            except ImportError as error:
                failed, reason = _ALL, f"{error}: {INSTALL.format(extra=name)}"
            except Exception as error:
                failed, reason = _ALL, f"{type(error).__name__}: {error}"
            else:
                failed, reason = frozenset(), ""
            if name in entries:
                entries[name].remove(_ALL - failed)
            report.targets[name] = reason
            if reason:
                log.warning("%s: %s", batch.name, reason)

        thread = threading.Thread(target=send, name=f"batchobs-{name}", daemon=True)
        thread.start()
        return thread


def make_target(name: str, environ: Mapping[str, str]) -> Target:
    """
    Make a target; this imports what it needs.

    Args:
        name: of the target.
        environ: the environment before any target was made: ddtrace's is changed in the process's own.

    Raises:
        ImportError: if the packages of the target are missing.
    """
    if name == "datadog":
        from batch_observability.export.datadog import DatadogTarget

        return DatadogTarget(os.environ)
    from batch_observability.export.otlp import OtlpTarget

    return OtlpTarget(environ)


def _target_signals(name: str) -> frozenset[str]:
    # Without importing the target: nothing heavy stands between a run's end and its signals on disk.
    return {"datadog": _ALL - {LOGS}, "otlp": _ALL - {EVENTS}}[name]


def _attempt(what: str, action: Callable[[], Any]) -> None:
    try:
        action()
    except OSError as error:
        log.warning("%s cannot be written: %s", what, error)


def append_log(folder: Path, batch: Batch) -> None:
    """
    Append the log records of a batch to the file that an Agent tails, `batch_models.jsonl`.

    Raises:
        OSError: if it cannot be written.
    """
    if not batch.logs:
        return
    private_folder(folder)
    lines = b"".join(json.dumps(as_line(record), default=str).encode() + b"\n" for record in batch.logs)
    path = folder / "batch_models.jsonl"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, lines)
        ours = os.fstat(descriptor)
        with suppress(FileNotFoundError):  # another process has just rotated it, or put a new file in its place
            if ours.st_size > _LOG_BYTES and os.path.samestat(ours, path.stat()):
                path.replace(path.with_suffix(".jsonl.1"))
    finally:
        os.close(descriptor)


def as_line(record: LogRecord) -> dict[str, Any]:
    """Return a log record as the JSON object that a line holds."""
    return {
        schema.LOG_TIMESTAMP: datetime.fromtimestamp(record.time_ns / 1e9, UTC).isoformat(timespec="microseconds"),
        schema.LOG_LEVEL: record.level,
        schema.LOG_LOGGER: "batch_observability",
        schema.LOG_EVENT: record.event,
        **record.attributes,
    }


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner reads, and the one above it."""
    for path in (folder.parent, folder):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


class _PrivateLog(RotatingFileHandler):
    """A log file that only its owner reads, also after a rotation."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")


def log_problems_to(folder: Path) -> None:
    """Write our own warnings to `observer.log`, bounded: sidecars have no other place to say what went wrong."""
    try:
        private_folder(folder)
        handler = _PrivateLog(folder / "observer.log", maxBytes=1_000_000, backupCount=1, delay=True)
    except OSError:
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    logger = logging.getLogger("batch_observability")
    logger.addHandler(handler)
    logger.propagate = False
