"""
The spool: a folder where signals are safe on disk while no target has taken them.

One file for each batch and signal, `<target>/<time>-<name>.<signal>.jsonl`, one OTLP/JSON document a line, as an
OpenTelemetry Collector's `otlpjsonfile` receiver reads them. Files are 0600, folders 0700. When more waits than the
bound allows, the oldest go first.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from batch_observability.export.otlp_json import encode
from batch_observability.export.signals import Batch


@dataclass(frozen=True)
class Entry:
    """A batch on disk: its files by signal, and how many older files went to make room."""

    files: dict[str, Path]
    dropped: int

    def remove(self, signals: frozenset[str]) -> None:
        """Forget these signals: somebody has taken them."""
        for signal in signals & self.files.keys():
            self.files[signal].unlink(missing_ok=True)


class Spool:
    """
    The spool below a folder.

    Args:
        folder: made when first needed.
        max_mb: megabytes that may wait.
    """

    def __init__(self, folder: Path, max_mb: int) -> None:
        self.folder = folder
        self._max_bytes = max_mb * 1_000_000

    def put(self, target: str, batch: Batch) -> Entry:
        """
        Write a batch that is to go to a target; it is on disk (fsync) when this returns.

        Raises:
            OSError: if the folder cannot be written.
        """
        folder = self.folder / target
        for path in (self.folder.parent, self.folder, folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        now_ns = time.time_ns()
        stem = f"{now_ns:020d}-{re.sub(r'[^A-Za-z0-9_.-]', '_', batch.name)[:100]}"
        files = {}
        try:
            for signal, document in encode(batch, now_ns).items():
                path = files[signal] = folder / f"{stem}.{signal}.jsonl"
                _write(path, json.dumps(document, separators=(",", ":")).encode() + b"\n")
            _sync_folder(folder)
        except OSError:
            # Half a batch would be sent twice once the other half is.
            for path in files.values():
                path.unlink(missing_ok=True)
            raise
        return Entry(files, self._make_room(keep=set(files.values())))

    def waiting(self) -> list[Path]:
        """All files, oldest first."""
        return sorted(self.folder.glob("*/*.jsonl"), key=lambda path: path.name)

    def _make_room(self, keep: set[Path]) -> int:
        sizes = {}
        for path in self.waiting():
            with contextlib.suppress(FileNotFoundError):  # another sidecar has just sent it
                sizes[path] = path.stat().st_size
        over, dropped = sum(sizes.values()) - self._max_bytes, 0
        for path, size in sizes.items():
            if over <= 0:
                break
            if path not in keep:
                path.unlink(missing_ok=True)
                over -= size
                dropped += 1
        return dropped


def _write(path: Path, data: bytes) -> None:
    # Under another name first: a reader never sees half a document.
    partial = path.with_suffix(".part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
