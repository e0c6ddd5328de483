"""
Send what waits in the spool: changes of the ledger first, for they say which signals are still wanted; then signals,
the oldest first.

Any number of processes may do so at once: each file is locked by who sends it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from batch_observability.export.deliver import CLAIMS, REJECTED, Delivery
from batch_observability.export.otlp_read import decode
from batch_observability.export.sending import Sending
from batch_observability.export.signals import Batch
from batch_observability.export.spool import CHANGE, LEDGER
from batch_observability.export.spool_file import LINES, Entry, UnreadableError, stem_of
from batch_observability.export.target import taken_by
from batch_observability.ledger.records import Change
from batch_observability.ledger.records import decode as decode_change
from batch_observability.ledger.store import LedgerError

log = logging.getLogger("batch_observability.replay")

_CHANGES_AT_ONCE = 200
# A target that refuses this often in a row is away; a single file that it refuses must not keep the others.
_REFUSALS = 3
_SOURCE = Batch("batch_observability", "", "", "replay")


@dataclass
class Replayed:
    """
    What a replay did.

    Attributes:
        sent: files by target.
        refused: why a target took something not, by target.
        dropped: files that had to go, by reason.
        unreadable: a line for each file that cannot be used.
        untold: runs that somebody else had told, and whose signals were so not sent.
        complete: whether there was time for all.
    """

    sent: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    untold: int = 0
    complete: bool = True


def replay(delivery: Delivery, limit_s: float = float("inf")) -> Replayed:
    """
    Send what waits for the ledger and for the targets of a delivery.

    Args:
        delivery: where to.
        limit_s: seconds after which nothing more is begun.
    """
    return _Replay(delivery, time.monotonic() + limit_s).run()


class _Replay:
    def __init__(self, delivery: Delivery, deadline: float) -> None:
        self._delivery = delivery
        self._spool = delivery.spool
        self._deadline = deadline
        self._result = Replayed()
        self._uncounted: dict[str, int] = {}
        self._partial: dict[str, list[Path]] = {}

    def run(self) -> Replayed:
        targets = self._delivery.targets
        backends = [name for name in targets if name != "spool"]
        if backends and "spool" not in targets:
            self._spool.adopt({name: taken_by(name) for name in backends})
        for reason, count in self._spool.make_room().items():
            self._drop(reason, count)
        self._changes()
        for name in backends:
            self._signals(name)
        if self._uncounted:
            self._delivery.drop(_SOURCE, self._uncounted)
            for name in backends:
                if name not in self._result.refused:
                    self._signals(name)
        return self._result

    def _in_time(self) -> bool:
        self._result.complete = self._result.complete and time.monotonic() < self._deadline
        return self._result.complete

    def _changes(self) -> None:
        self._partial = self._spool.partial()
        paths = self._spool.paths(LEDGER)
        while paths and self._in_time():
            some, paths = paths[:_CHANGES_AT_ONCE], paths[_CHANGES_AT_ONCE:]
            read = [(entry, change) for entry in self._take(some) if (change := self._change(entry))]
            error = self._apply(read)
            stop = error is not None and (error.retry or not self._apply_each(read))
            for entry, _ in read:
                entry.release()
            if stop:
                return
        if LEDGER not in self._result.refused:
            self._spool.note(LEDGER, "")

    def _apply_each(self, read: list[tuple[Entry, Change]]) -> bool:
        """Bring changes in one by one: one that cannot be taken must not keep the others. Return whether to go on."""
        refusals = 0
        for one in read:
            refusals = refusals + 1 if self._apply([one]) else 0
            if refusals == _REFUSALS:
                return False
        return True

    def _apply(self, read: list[tuple[Entry, Change]]) -> LedgerError | None:
        """Bring changes into the ledger, all or none; return why not."""
        try:
            applied = self._delivery.ledger.apply_all([change for _, change in read]) if read else []
        except LedgerError as error:
            self._refuse(LEDGER, str(error))
            return error
        for (entry, change), took_effect in zip(read, applied, strict=True):
            self._settle_change(entry, told=took_effect or not isinstance(change, CLAIMS))
        return None

    def _settle_change(self, entry: Entry, *, told: bool) -> None:
        _count(self._result.sent, LEDGER)
        if not told:
            # Another process told it meanwhile: told twice, it would be two.
            self._result.untold += 1
        for sibling in self._take(self._partial.get(entry.stem, []) if told else self._spool.siblings(entry)):
            if told:
                # Whoever wrote it was killed before it could be settled.
                with suppress(OSError):
                    sibling.settle()
                sibling.release()
            else:
                sibling.remove()
        entry.remove()

    def _change(self, entry: Entry) -> Change | None:
        try:
            documents, _ = entry.documents()
            return decode_change(documents[0])
        except (UnreadableError, ValueError) as error:
            self._set_aside(entry, error)
            return None

    def _signals(self, target: str) -> None:
        refusals = 0
        for path in self._spool.paths(target):
            if not self._in_time():
                return
            if self._is_being_claimed(path):
                continue
            for entry in self._take([path]):
                refusals = refusals + 1 if self._send(target, entry) else 0
            if refusals >= _REFUSALS:
                return
        if target not in self._result.refused:
            self._spool.note(target, "")

    def _is_being_claimed(self, path: Path) -> bool:
        """Whether somebody else is asking the ledger just now if these signals are still wanted."""
        change = self._spool.folder / LEDGER / f"{stem_of(path)}.{CHANGE}{LINES}"
        try:
            entry = Entry.take(change)
        except UnreadableError:
            return False
        if entry is not None:
            entry.release()
            return False
        return change.exists()

    def _send(self, target: str, entry: Entry) -> str:
        """Send a file; return why it was refused, "" if it was taken or is gone."""
        if entry.half_sent or entry.too_old:
            self._drop("too_old" if entry.too_old else "uncertain")
            entry.remove()
            return ""
        try:
            documents, lost = entry.documents()
            batch = _together([decode(entry.signal, document, entry.stem) for document in documents])
        except (UnreadableError, ValueError) as error:
            self._set_aside(entry, error)
            return ""
        if lost:
            self._unreadable(f"{entry.path} has {lost} lines that are no JSON; they are skipped")
        sending = Sending(target, batch, [entry])
        self._delivery.attempt(sending)
        sending.let_go()
        if sending.lost:
            # It is counted with what a target is told next.
            _count(self._result.dropped, sending.lost)
        if sending.lost == REJECTED:
            # The next may be taken.
            return ""
        if sending.reason:
            self._refuse(target, sending.reason)
        else:
            _count(self._result.sent, target)
        return sending.reason

    def _take(self, paths: Iterable[Path]) -> Iterator[Entry]:
        for path in paths:
            try:
                entry = Entry.take(path)
            except UnreadableError as error:
                self._unreadable(str(error))
                continue
            if entry is not None:
                yield entry

    def _set_aside(self, entry: Entry, error: Exception) -> None:
        text = str(error) if isinstance(error, UnreadableError) else f"{entry.path} cannot be used: {error}"
        entry.set_aside()
        self._unreadable(text)

    def _unreadable(self, text: str) -> None:
        log.warning("%s", text)
        self._result.unreadable.append(text)
        self._drop("unreadable")

    def _drop(self, reason: str, count: int = 1) -> None:
        _count(self._result.dropped, reason, count)
        _count(self._uncounted, reason, count)

    def _refuse(self, target: str, reason: str) -> None:
        if target not in self._result.refused:
            log.warning("%s", reason)
        self._result.refused[target] = reason
        self._spool.note(target, reason)


def _count(counts: dict[str, int], name: str, more: int = 1) -> None:
    counts[name] = counts.get(name, 0) + more


def _together(batches: list[Batch]) -> Batch:
    """A file of ours holds one batch; somebody may have put several into one."""
    return replace(
        batches[0],
        spans=tuple(span for batch in batches for span in batch.spans),
        points=tuple(point for batch in batches for point in batch.points),
        logs=tuple(record for batch in batches for record in batch.logs),
        events=tuple(event for batch in batches for event in batch.events),
    )
