"""
The spool: a folder where signals, and changes of the ledger, are safe on disk while nobody has taken them.

One file for each batch and signal, `<target>/<time>-<name>.<signal>.jsonl`, one OTLP/JSON document a line, as an
OpenTelemetry Collector's `otlpjsonfile` receiver reads them. Files are 0600, folders 0700. Whoever sends a file holds
a lock on it, so that it is never sent twice at the same time. When more waits than the bounds allow, the oldest go
first.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_observability.export.otlp_json import encode
from batch_observability.export.signals import LOGS, Batch
from batch_observability.export.spool_file import (
    BROKEN,
    LINES,
    PARTIAL,
    SENDING,
    Entry,
    UnreadableError,
    signal_of,
    stem_of,
    sync_folder,
    time_of,
)
from batch_observability.private import private_folder, write_private

LEDGER, CHANGE = "ledger", "change"
_REASON = "reason.txt"
_PARTIAL_S = 3600


@dataclass(frozen=True)
class Waiting:
    """What waits for one target: files and bytes by signal, since when (Unix time in ns), and why."""

    target: str
    files: dict[str, int]
    size: int
    since_ns: int
    broken: int
    reason: str


class Spool:
    """
    The spool below a folder.

    Args:
        folder: made when first needed.
        max_mb: megabytes that may wait.
        max_hours: hours that something may wait.
    """

    def __init__(self, folder: Path, max_mb: int, max_hours: int) -> None:
        self.folder = folder
        self._max_bytes = max_mb * 1_000_000
        self._max_age_ns = max_hours * 3600 * 10**9

    def put(self, batch: Batch, targets: dict[str, frozenset[str]], change: dict[str, Any] | None) -> list[Entry]:
        """
        Write a batch for some targets, and the change of the ledger that goes with it; all is on disk (fsync) when this
        returns, and locked.

        Args:
            batch: what to keep.
            targets: what each of them takes.
            change: as `ledger.records.encode` gives it.

        Raises:
            OSError: if it cannot be written; then nothing is.
        """
        now_ns = time.time_ns()
        stem = f"{now_ns:020d}-{re.sub(r'[^A-Za-z0-9_.-]', '_', batch.name)[:100]}"
        documents = encode(batch, now_ns) if targets else {}
        wanted = [
            (name, signal, documents[signal])
            for name, takes in targets.items()
            for signal in documents
            if signal in takes
        ]
        if change is not None:
            wanted.append((LEDGER, CHANGE, change))
        entries: list[Entry] = []
        try:
            for name, signal, document in wanted:
                path = self._folder(name) / f"{stem}.{signal}{LINES}"
                data = json.dumps(document, separators=(",", ":")).encode() + b"\n"
                # Until the change is there which says whose they are, signals are nobody's. If this process is killed
                # in between, they never are; if it is killed after that, they are when the change is settled.
                entries.append(Entry.write(path, data, partial=change is not None and name != LEDGER))
            for entry in entries:
                entry.settle()
            for folder in {entry.path.parent for entry in entries}:
                sync_folder(folder)
        except OSError:
            # Half a batch would be sent twice once the other half is.
            for entry in entries:
                entry.remove()
            raise
        return entries

    def _folder(self, target: str) -> Path:
        folder = self.folder / target
        private_folder(self.folder)
        private_folder(folder)
        return folder

    def targets(self) -> list[str]:
        """Everybody for whom something may wait."""
        try:
            return sorted(entry.name for entry in os.scandir(self.folder) if entry.is_dir())
        except OSError:
            return []

    def paths(self, target: str) -> list[Path]:
        """Files that wait for a target, oldest first."""
        return sorted(path for path in self._all(target) if path.suffix in (LINES, SENDING))

    def _all(self, target: str) -> list[Path]:
        try:
            return [Path(entry.path) for entry in os.scandir(self.folder / target) if entry.name[:20].isdecimal()]
        except OSError:
            return []

    def holds_change_of(self, run_id: str) -> bool:
        """Whether a change of a run waits for the ledger."""
        return any(path.name.endswith(f"-{run_id}.{CHANGE}{LINES}") for path in self._all(LEDGER))

    def siblings(self, entry: Entry) -> list[Path]:
        """Other files of the same batch."""
        found = (path for target in self.targets() for path in self._all(target))
        return [path for path in found if path.name.startswith(f"{entry.stem}.") and path != entry.path]

    def partial(self) -> dict[str, list[Path]]:
        """Files that were not settled, by what the names of their batches have in common."""
        found: dict[str, list[Path]] = {}
        for path in (path for target in self.targets() for path in self._all(target) if path.suffix == PARTIAL):
            found.setdefault(stem_of(path), []).append(path)
        return found

    def adopt(self, targets: dict[str, frozenset[str]]) -> None:
        """Let what was kept while there was no target wait for these."""
        for path in self.paths("spool"):
            with suppress(OSError, UnreadableError):
                entry = Entry.take(path)
                if entry is not None:
                    self._hand_over(entry, targets)

    def _hand_over(self, entry: Entry, targets: dict[str, frozenset[str]]) -> None:
        try:
            for name, takes in targets.items():
                if entry.signal in takes:
                    folder = self._folder(name)
                    with suppress(FileExistsError):
                        os.link(entry.path, folder / entry.path.name)
                    sync_folder(folder)
            entry.remove()
        finally:
            entry.release()

    def make_room(self) -> Counter[str]:
        """
        Drop what is too old, and the oldest of what is too much, log records first, as they are many, and in files of
        their own; return how many files, by reason.
        """
        dropped: Counter[str] = Counter()
        now_ns, total = time.time_ns(), 0
        found = []
        for target in self.targets():
            for path in self._all(target):
                with suppress(OSError):  # somebody has just sent it
                    size = path.lstat().st_size
                    found.append((signal_of(path) != LOGS, path.name, path, size))
                    total += size
        for _, _, path, size in sorted(found):
            age_ns = now_ns - time_of(path)
            partial = path.suffix == PARTIAL
            reason = "spool_full" if total > self._max_bytes else "spool_age" if age_ns > self._max_age_ns else ""
            if not reason and not (partial and age_ns > _PARTIAL_S * 10**9):
                continue
            if _drop(path):
                total -= size
                if reason and not partial and path.suffix != BROKEN:
                    dropped[reason] += 1
        return dropped

    def note(self, target: str, reason: str) -> None:
        """Remember why something waits for a target; "" for nothing does."""
        path = self.folder / target / _REASON
        with suppress(OSError):
            if reason:
                write_private(path, reason.encode("utf-8", "replace").decode() + "\n")
            else:
                path.unlink(missing_ok=True)

    def status(self) -> list[Waiting]:
        """
        What waits, for everybody for whom something does.

        Raises:
            OSError: if the folder cannot be read.
        """
        with suppress(FileNotFoundError):
            os.scandir(self.folder).close()
        return [waiting for target in self.targets() if (waiting := self._waiting(target)).files or waiting.broken]

    def _waiting(self, target: str) -> Waiting:
        paths = self._all(target)
        waiting = [path for path in paths if path.suffix in (LINES, SENDING)]
        size = 0
        for path in paths:
            with suppress(OSError):
                size += path.lstat().st_size
        reason = ""
        with suppress(OSError):
            reason = (self.folder / target / _REASON).read_text(encoding="utf-8", errors="replace").strip()
        return Waiting(
            target,
            files=dict(Counter(map(signal_of, waiting))),
            size=size,
            since_ns=min(map(time_of, waiting or paths), default=0),
            broken=sum(path.suffix == BROKEN for path in paths),
            reason=reason,
        )


def _drop(path: Path) -> bool:
    """Remove a file, if nobody is at it; return whether it is gone."""
    try:
        entry = Entry.take(path)
    except UnreadableError:
        # Set aside by now, for a person to look at until its time has come.
        if path.suffix == BROKEN:
            with suppress(OSError):
                path.unlink()
                return True
        return False
    if entry is None:
        return False
    entry.remove()
    return True
