"""
Send what waits in the spool: changes of the ledger first, for they say which signals are still wanted; then signals,
the oldest first.

Any number of processes may do so at once: each file is locked by who sends it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from batch_observability.export.deliver import Delivery, Sending
from batch_observability.export.otlp_read import decode
from batch_observability.export.signals import Batch
from batch_observability.export.spool import LEDGER, Entry, UnreadableError
from batch_observability.export.target import taken_by
from batch_observability.ledger.records import Change, Finished
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

    sent: Counter[str] = field(default_factory=Counter)
    refused: dict[str, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
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

    def run(self) -> Replayed:
        backends = {name: taken_by(name) for name in self._delivery.targets if name != "spool"}
        if backends and "spool" not in self._delivery.targets:
            self._spool.adopt(backends)
        self._result.dropped += self._spool.make_room()
        self._changes()
        for name in backends:
            self._signals(name)
        self._delivery.drop(_SOURCE, self._result.dropped)
        return self._result

    def _in_time(self) -> bool:
        self._result.complete = self._result.complete and time.monotonic() < self._deadline
        return self._result.complete

    def _changes(self) -> None:
        paths = self._spool.paths(LEDGER)
        while paths and self._in_time():
            some, paths = paths[:_CHANGES_AT_ONCE], paths[_CHANGES_AT_ONCE:]
            read = [(entry, change) for entry in self._take(some) if (change := self._change(entry))]
            try:
                applied = self._delivery.ledger.apply_all([change for _, change in read]) if read else []
            except LedgerError as error:
                self._refuse(LEDGER, str(error), (entry for entry, _ in read))
                return
            for (entry, change), took_effect in zip(read, applied, strict=True):
                self._settle_change(entry, told=took_effect or not isinstance(change, Finished))
        self._accepted(LEDGER)

    def _settle_change(self, entry: Entry, *, told: bool) -> None:
        self._result.sent[LEDGER] += 1
        if not told:
            # Another process told the run meanwhile: told twice, it would be two runs.
            self._result.untold += 1
            for sibling in self._take(self._spool.siblings(entry)):
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
            for entry in self._take([path]):
                reason = self._send(target, entry)
                refusals = refusals + 1 if reason else 0
            if refusals >= _REFUSALS:
                return
        if not self._result.refused.get(target):
            self._accepted(target)

    def _send(self, target: str, entry: Entry) -> str:
        """Send a file; return why it was refused, "" if it was taken or is gone."""
        if entry.half_sent or entry.too_old:
            self._result.dropped["too_old" if entry.too_old else "uncertain"] += 1
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
        if sending.reason:
            self._refuse(target, sending.reason, ())
        else:
            self._result.sent[target] += 1
        return sending.reason

    def _take(self, paths: Iterable[Path]) -> Iterable[Entry]:
        for path in paths:
            try:
                entry = self._spool.take(path)
            except UnreadableError as error:
                self._unreadable(str(error))
                continue
            if entry is not None:
                yield entry

    def _set_aside(self, entry: Entry, error: Exception) -> None:
        entry.set_aside()
        text = str(error) if isinstance(error, UnreadableError) else f"{entry.path} cannot be used: {error}"
        self._unreadable(text)

    def _unreadable(self, text: str) -> None:
        log.warning("%s", text)
        self._result.unreadable.append(text)
        self._result.dropped["unreadable"] += 1

    def _refuse(self, target: str, reason: str, entries: Iterable[Entry]) -> None:
        if target not in self._result.refused:
            log.warning("%s", reason)
        self._result.refused[target] = reason
        self._spool.note(target, reason)
        for entry in entries:
            entry.release()

    def _accepted(self, target: str) -> None:
        self._spool.note(target, "")


def _together(batches: list[Batch]) -> Batch:
    """A file of ours holds one batch; somebody may have put several into one."""
    return replace(
        batches[0],
        spans=tuple(span for batch in batches for span in batch.spans),
        points=tuple(point for batch in batches for point in batch.points),
        logs=tuple(record for batch in batches for record in batch.logs),
        events=tuple(event for batch in batches for event in batch.events),
    )
