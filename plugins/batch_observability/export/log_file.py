"""
Files that people and Agents read: the runs' log records, and what our own processes have to say.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from batch_observability import schema
from batch_observability.export.signals import Batch, LogRecord
from batch_observability.private import private_folder

RUNS_FILE = "batch_models.jsonl"
_LOG_BYTES = 50_000_000


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
    path = folder / RUNS_FILE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        written = os.write(descriptor, lines)
        if written < len(lines):
            # The disk is full: what comes next is not to be glued to half a line.
            os.write(descriptor, b"\n")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
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
        schema.LOG_LOGGER: record.logger,
        schema.LOG_EVENT: record.event,
        **record.attributes,
    }


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
