"""
The spool: a folder where signals, and changes of the ledger, are safe on disk while nobody has taken them.

One file for each batch and signal, `<target>/<time>-<name>.<signal>.jsonl`, one OTLP/JSON document a line, as an
OpenTelemetry Collector's `otlpjsonfile` receiver reads them. Files are 0600, folders 0700. Whoever sends a file holds
a lock on it, so that it is never sent twice at the same time; the lock goes with the process. When more waits than
the bounds allow, the oldest go first.
"""

from __future__ import annotations

import fcntl
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
from batch_observability.export.signals import METRICS, TRACES, Batch

LEDGER, CHANGE = "ledger", "change"
_LINES = ".jsonl"
# Metrics have no ids: of a file that somebody began to send and did not finish, nobody knows what arrived.
_SENDING = ".sending"
_BROKEN = ".broken"
_REASON = "reason.txt"
# Datadog takes no older spans.
_DATADOG_TRACES_S = 18 * 3600
_PARTIAL_S = 3600


class UnreadableError(Exception):
    """A file of the spool cannot be used; the message names it and says why."""


@dataclass
class Entry:
    """
    One file of the spool, locked by this process.

    Attributes:
        target: whom it is for, `LEDGER` for a change of the ledger.
        signal: what it holds; `CHANGE` for the ledger.
        path: where it is.
        descriptor: of the open file; it holds the lock.
    """

    target: str
    signal: str
    path: Path
    descriptor: int

    @property
    def stem(self) -> str:
        """What all files of one batch have in common."""
        return self.path.name.partition(f".{self.signal}{_LINES}")[0]

    @property
    def time_ns(self) -> int:
        """When it was put here."""
        return _time_ns(self.path)

    @property
    def half_sent(self) -> bool:
        """Whether somebody began to send it, and it has no ids that would make a second time harmless."""
        return self.path.suffix == _SENDING

    @property
    def too_old(self) -> bool:
        """Whether its target takes nothing that old."""
        limited = self.target == "datadog" and self.signal == TRACES
        return limited and time.time_ns() - self.time_ns > _DATADOG_TRACES_S * 10**9

    def documents(self) -> tuple[list[Any], int]:
        """
        Return its documents, and how many of its lines are none.

        Raises:
            UnreadableError: if there is none at all.
        """
        with os.fdopen(os.dup(self.descriptor), "rb") as file:
            file.seek(0)
            lines = file.read().splitlines()
        documents = []
        for line in lines:
            with suppress(ValueError, RecursionError):
                documents.append(json.loads(line))
        if not documents:
            raise UnreadableError(f"{self.path} holds no JSON line")
        return documents, len(lines) - len(documents)

    def begin(self) -> None:
        """Say that it is being sent."""
        if self.signal == METRICS and not self.half_sent:
            self._rename(self.path.with_name(self.path.name + _SENDING))
            _sync_folder(self.path.parent)

    def refused(self) -> None:
        """Say that none of it has arrived; it stays locked."""
        if self.half_sent:
            self._rename(self.path.with_name(self.path.name.removesuffix(_SENDING)))

    def remove(self) -> None:
        """Forget it: somebody has taken it, or nobody may have it any more."""
        with suppress(OSError):
            self.path.unlink()
        self.release()

    def set_aside(self) -> None:
        """Keep it for a person to look at; nobody tries it again."""
        with suppress(OSError):
            self._rename(self.path.with_name(self.path.name + _BROKEN))
        self.release()

    def release(self) -> None:
        """Let others have it."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _rename(self, path: Path) -> None:
        self.path.rename(path)
        self.path = path


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
            (name, signal, documents[signal]) for name, takes in targets.items() for signal in takes & documents.keys()
        ]
        if change is not None:
            wanted.insert(0, (LEDGER, CHANGE, change))
        entries: list[Entry] = []
        try:
            for name, signal, document in wanted:
                folder = self._folder(name)
                line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
                entries.append(Entry(name, signal, *_write(folder / f"{stem}.{signal}{_LINES}", line)))
            for folder in {entry.path.parent for entry in entries}:
                _sync_folder(folder)
        except OSError:
            # Half a batch would be sent twice once the other half is.
            for entry in entries:
                entry.remove()
            raise
        return entries

    def _folder(self, target: str) -> Path:
        folder = self.folder / target
        for path in (self.folder.parent, self.folder, folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def targets(self) -> list[str]:
        """Everybody for whom something may wait."""
        try:
            return sorted(entry.name for entry in os.scandir(self.folder) if entry.is_dir())
        except OSError:
            return []

    def paths(self, target: str) -> list[Path]:
        """Files that wait for a target, oldest first."""
        return sorted(path for path in self._all(target) if path.suffix in (_LINES, _SENDING))

    def _all(self, target: str) -> list[Path]:
        try:
            return [Path(entry.path) for entry in os.scandir(self.folder / target) if entry.name[:20].isdecimal()]
        except OSError:
            return []

    def take(self, path: Path) -> Entry | None:
        """
        Lock a file that waits; None if somebody else is at it, or it is gone.

        Raises:
            UnreadableError: if it may not be read; it is set aside where that is possible.
        """
        name = path.name.removesuffix(_SENDING).removesuffix(_LINES)
        entry = Entry(path.parent.name, name.rpartition(".")[2], path, -1)
        try:
            entry.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            entry.set_aside()
            raise UnreadableError(f"{path} cannot be read: {error.strerror}") from None
        try:
            fcntl.flock(entry.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(entry.descriptor), path.stat()):
                return entry
        except OSError:
            pass
        entry.release()
        return None

    def holds_change_of(self, run_id: str) -> bool:
        """Whether a change of a run waits for the ledger."""
        return any(path.name.endswith(f"-{run_id}.{CHANGE}{_LINES}") for path in self._all(LEDGER))

    def siblings(self, entry: Entry) -> list[Path]:
        """Other files of the same batch."""
        found = (path for target in self.targets() for path in self._all(target))
        return [path for path in found if path.name.startswith(f"{entry.stem}.") and path != entry.path]

    def adopt(self, targets: dict[str, frozenset[str]]) -> None:
        """Let what was kept while there was no target wait for these."""
        for path in self.paths("spool"):
            entry = self.take(path)
            if entry is None:
                continue
            for name, takes in targets.items():
                if entry.signal in takes:
                    with suppress(FileExistsError):
                        os.link(path, self._folder(name) / path.name)
            entry.remove()

    def make_room(self) -> Counter[str]:
        """Drop what is too old, and the oldest of what is too much; return how many files, by reason."""
        dropped: Counter[str] = Counter()
        now_ns, total = time.time_ns(), 0
        found = []
        for target in self.targets():
            for path in self._all(target):
                with suppress(OSError):  # somebody has just sent it
                    status = path.stat()
                    found.append((path.name, path, status.st_size))
                    total += status.st_size
        for _, path, size in sorted(found):
            age_ns = now_ns - _time_ns(path)
            partial = path.suffix == ".part"
            reason = "spool_full" if total > self._max_bytes else "spool_age" if age_ns > self._max_age_ns else ""
            if not reason and not (partial and age_ns > _PARTIAL_S * 10**9):
                continue
            if self._drop(path):
                total -= size
                if reason and not partial and path.suffix != _BROKEN:
                    dropped[reason] += 1
        return dropped

    def _drop(self, path: Path) -> bool:
        try:
            entry = self.take(path)
        except UnreadableError:
            return False
        if entry is None:
            return False
        entry.remove()
        return True

    def note(self, target: str, reason: str) -> None:
        """Remember why something waits for a target; "" for nothing does."""
        path = self.folder / target / _REASON
        with suppress(OSError):
            if reason:
                _replace(path, reason)
            else:
                path.unlink(missing_ok=True)

    def status(self) -> list[Waiting]:
        """What waits, for everybody for whom something does."""
        found = []
        for target in self.targets():
            paths = self._all(target)
            files = Counter(_signal(path) for path in paths if path.suffix in (_LINES, _SENDING))
            broken = sum(path.suffix == _BROKEN for path in paths)
            size = 0
            for path in paths:
                with suppress(OSError):
                    size += path.stat().st_size
            since_ns = min((_time_ns(path) for path in paths), default=0)
            reason = ""
            with suppress(OSError):
                reason = (self.folder / target / _REASON).read_text(encoding="utf-8", errors="replace").strip()
            if files or broken:
                found.append(Waiting(target, dict(files), size, since_ns, broken, reason))
        return found


def _signal(path: Path) -> str:
    return path.name.removesuffix(_SENDING).removesuffix(_LINES).rpartition(".")[2]


def _time_ns(path: Path) -> int:
    return int(path.name[:20])


def _write(path: Path, data: bytes) -> tuple[Path, int]:
    # Under another name first: a reader never sees half a document.
    partial = path.with_name(path.name + ".part")
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        partial.rename(path)
    except OSError:
        os.close(descriptor)
        partial.unlink(missing_ok=True)
        raise
    return path, descriptor


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    partial.rename(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
