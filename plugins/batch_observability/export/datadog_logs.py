"""
Log records to Datadog's HTTP intake, for hosts without an Agent that tails their files.

Source: https://docs.datadoghq.com/api/latest/logs/#send-logs (v2): at most 1,000 records and 5 MB at once; a record
above 1 MB is cut there. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from batch_observability import schema
from batch_observability.export.intake import REMEDY, IntakeError, post, site
from batch_observability.export.log_file import as_line
from batch_observability.export.signals import LOGS, Batch, LogRecord
from batch_observability.export.target import ExportError
from batch_observability.redact import redact_text
from batch_observability.usage import host_name

# What tells these records from those of other programs in Datadog, where a pipeline is chosen by it.
SOURCE = "batch_observability"
_URL = "DD_LOGS_CONFIG_LOGS_DD_URL"
_PATH = "/api/v2/logs"
_MAX_RECORDS, _MAX_BYTES, _MAX_RECORD_BYTES = 1000, 4_500_000, 1_000_000
_LATER = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


class DatadogLogsTarget:
    """
    Datadog's intake of logs.

    Records have no ids there: what nobody answered is sent again, for a line that is there twice is better than none.

    Args:
        environ: `DD_API_KEY`, `DD_SITE`, and `DD_LOGS_CONFIG_LOGS_DD_URL` for another address.
    """

    name = "datadog-logs"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def send(self, batch: Batch) -> None:
        """Send the log records of a batch."""
        rejected = ""
        for payload in _payloads([_document(record, batch) for record in batch.logs]):
            rejected = self._send(payload) or rejected
        if rejected:
            raise ExportError({LOGS: rejected}, rejected=True)

    def _send(self, records: list[bytes]) -> str:
        """Send records at once; return why some of them will never be taken, or ""."""
        url, headers = address(self._environ), {"Content-Type": "application/json"}
        try:
            answer = post("Datadog's log intake", url, b"[" + b",".join(records) + b"]", headers, self._environ)
        except IntakeError as error:
            raise ExportError({LOGS: str(error)}) from None
        if answer.taken:
            return ""
        if answer.too_large and len(records) > 1:
            half = len(records) // 2
            first, second = self._send(records[:half]), self._send(records[half:])
            return first or second
        problem = f"Datadog's log intake answered {answer}"
        if answer.key_refused:
            raise ExportError({LOGS: f"{problem}: {REMEDY}"})
        if answer.status in _LATER or not 400 <= answer.status < 500:
            raise ExportError({LOGS: problem})
        return problem


def address(environ: Mapping[str, str]) -> str:
    """
    Return the URL of the intake.

    Raises:
        ExportError: if what was configured is none.
    """
    configured = environ.get(_URL, "").strip()
    if not configured:
        try:
            return f"https://http-intake.logs.{site(environ)}{_PATH}"
        except IntakeError as error:
            raise ExportError({LOGS: str(error)}) from None
    url = configured if "://" in configured else f"https://{configured}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ExportError(
            {LOGS: f"{_URL} is {redact_text(configured)!r}: write a host and port, or a URL with http or https"}
        )
    url = url.rstrip("/")
    return url if url.endswith(_PATH) else f"{url}{_PATH}"


def _payloads(records: list[bytes]) -> Iterator[list[bytes]]:
    """Yield records as the intake takes them at once."""
    payload: list[bytes] = []
    size = 0
    for record in records:
        if payload and (len(payload) >= _MAX_RECORDS or size + len(record) > _MAX_BYTES):
            yield payload
            payload, size = [], 0
        payload.append(record)
        size += len(record) + 1
    if payload:
        yield payload


def _document(record: LogRecord, batch: Batch) -> bytes:
    tags = {"env": batch.env, "version": batch.version}
    own = {
        "message": record.event,
        "ddsource": SOURCE,
        "service": batch.service,
        "hostname": record.attributes.get(schema.HOST_NAME) or host_name(),
        "ddtags": ",".join(f"{name}:{value}" for name, value in tags.items() if value),
    }
    document = {**as_line(record), **{name: value for name, value in own.items() if value}}
    data = _json(document)
    if len(data) > _MAX_RECORD_BYTES:
        # A record that the intake cuts is no JSON any more.
        del document[schema.LOG_EVENT]
        data = _json(document)
    return data


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), default=str, ensure_ascii=False).encode("utf-8", "replace")
