"""
Deliver a batch: first to disk, then to the ledger, which says whether the run is ours to tell, then to every target,
each within its time and again for a while; what was taken leaves the disk.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from batch_observability import schema
from batch_observability.config import Settings
from batch_observability.export.log_file import append_log
from batch_observability.export.sending import Sending
from batch_observability.export.signals import METRICS, Batch, Point
from batch_observability.export.spool import LEDGER, Spool
from batch_observability.export.spool_file import Entry
from batch_observability.export.target import GROUPS, INSTALL, Choice, ExportError, Target, make_target, taken_by
from batch_observability.ledger.records import Change, Finished, Promised, Recovered, encode
from batch_observability.ledger.store import Ledger, LedgerError
from batch_observability.redact import redact_text

log = logging.getLogger("batch_observability.export")

# Of each of these one telling takes effect, and only that is sent.
CLAIMS = (Finished, Promised, Recovered)
_FIRST_WAIT_S = 1.0
_DROPPED = "telemetry-dropped"
UNCERTAIN, REJECTED = "uncertain", "rejected"


@dataclass
class Report:
    """
    What became of a batch.

    Attributes:
        targets: "" for each that took all of it, else one line that says why not.
        ledger: the same for the ledger, "" too if there was no change.
        told: False if the run had been told by somebody else, and so was not told again.
        on_disk: whether it was safe on disk before it was sent.
    """

    targets: dict[str, str] = field(default_factory=dict)
    ledger: str = ""
    told: bool = True
    on_disk: bool = True


class Delivery:
    """
    Delivers batches to the chosen targets. One for each process; targets are made when first needed.

    Args:
        settings: bounds and folders.
        choice: the targets.
        patience_s: how long to go on trying what fails; default: `retry_for`.
    """

    def __init__(self, settings: Settings, choice: Choice, patience_s: float | None = None) -> None:
        self.settings = settings
        self.targets = choice.targets
        self.spool = Spool(settings.state_path / "spool", settings.spool_max_mb, settings.spool_max_hours)
        self.ledger = Ledger(settings.ledger, settings.ledger_timeout)
        self._patience_s = settings.retry_for if patience_s is None else patience_s
        self._made: dict[str, Target] = {}
        self._making = threading.Lock()
        self._environ = dict(os.environ)

    def deliver(
        self,
        batch: Batch,
        change: Change | None = None,
        on_safe: Callable[[bool], None] = lambda _safe: None,
        *,
        must_claim: bool = False,
        on_told: Callable[[], object] = lambda: None,
    ) -> Report:
        """
        Deliver a batch. Never raises: what a target does not take stays in the spool, and the report says why.

        Args:
            batch: the signals.
            change: of the ledger. If it closes a run that is closed already, the signals are not sent.
            on_safe: called once the batch is on disk, with True, or cannot be.
            must_claim: nothing is told, nor kept, unless the ledger has said that the run is ours to tell.
            on_told: called before it is sent, if it is not somebody else's to tell.
        """
        report = Report(targets=dict.fromkeys(self.targets, ""))
        entries = self._keep(batch, change, report)
        on_safe(report.on_disk)
        waiting = entries.pop((LEDGER, ""), [])
        recorded = change is None or self._record(change, report)
        if must_claim and report.ledger:
            report.told = False
        if not report.told:
            # The change goes last: as long as it is there, its signals are not sent without asking the ledger.
            _remove(entry for group in entries.values() for entry in group)
            _remove(waiting)
            return report
        if not report.ledger:
            _remove(waiting)
        on_told()
        self._write_log(batch)
        sendings = [
            Sending(name, part, entries.get((name, _key(signals)), []))
            for name in self.targets
            for signals in (GROUPS[name] if name != "spool" else ())
            if (part := batch.only(signals)).signals
        ]
        give_up, wait_s = time.monotonic() + self._patience_s, _FIRST_WAIT_S
        again = self._send(sendings, sendings, report)
        while (again or not recorded) and (left_s := give_up - time.monotonic()) > 0:
            time.sleep(min(wait_s, left_s))
            wait_s *= 2
            if not recorded and change is not None and (recorded := self._record(change, report)):
                if not report.told:
                    # What is sent is sent; but nothing more of it.
                    _remove(entry for sending in again for entry in sending.entries)
                if not report.ledger:
                    _remove(waiting)
            if not report.told:
                break
            again = self._send(again, sendings, report)
        for sending in sendings:
            sending.let_go()
        for entry in [*waiting, *entries.get(("spool", _key(taken_by("spool"))), [])]:
            entry.release()
        return report

    def record(self, name: str, change: Change, on_safe: Callable[[bool], None] = lambda _safe: None) -> Report:
        """Bring a change that has no signals into the ledger, or keep it."""
        return self.deliver(Batch("", "", "", name), change, on_safe)

    def send_now(self, batch: Batch) -> bool:
        """Send what is of no use later, and so is not kept; return whether all took it."""
        sendings = [Sending(name, batch.only(taken_by(name)), []) for name in self.targets if name != "spool"]
        for sending in sendings:
            self.attempt(sending)
        return not any(sending.reason for sending in sendings)

    def keep(self, batch: Batch) -> bool:
        """Put a batch on disk for a replay to send it; return whether it is there."""
        try:
            entries = self.spool.put(batch, self._wanted(), None)
        except OSError as error:
            log.warning("the spool cannot be written: %s", error)
            return False
        for entry in entries:
            entry.release()
        self.drop(batch, self.spool.make_room())
        return True

    def drop(self, batch: Batch, dropped: Mapping[str, int]) -> None:
        """Count what had to be dropped, by reason; the count goes with what is sent next."""
        if not dropped or batch.name == _DROPPED:
            return
        for reason, count in dropped.items():
            log.warning("%d of what was to be sent is dropped: %s", count, reason)
        tags = {schema.TAG_ENV: batch.env} if batch.env else {}
        tags[schema.TAG_SERVICE] = batch.service
        points = tuple(
            Point(schema.TELEMETRY_DROPPED, count, {**tags, schema.TAG_REASON: reason})
            for reason, count in dropped.items()
        )
        told = Batch(batch.service, batch.version, batch.env, _DROPPED, points=points)
        with suppress(OSError):
            takers = {name: frozenset({METRICS}) for name in self.targets if METRICS in taken_by(name)}
            for entry in self.spool.put(told, takers, None):
                entry.release()

    def _keep(self, batch: Batch, change: Change | None, report: Report) -> dict[tuple[str, str], list[Entry]]:
        """Put all on disk; return the files by target and the group of signals that are sent together."""
        try:
            entries = self.spool.put(batch, self._wanted(), encode(change) if change is not None else None)
        except OSError as error:
            log.warning("the spool cannot be written: %s", error)
            report.on_disk = False
            if "spool" in self.targets:
                report.targets["spool"] = f"{self.spool.folder} cannot be written"
            return {}
        found: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            groups = GROUPS.get(entry.target, ())
            key = next((_key(group) for group in groups if entry.signal in group), "")
            found.setdefault((entry.target, key), []).append(entry)
        self.drop(batch, self.spool.make_room())
        return found

    def _wanted(self) -> dict[str, frozenset[str]]:
        """Return what is kept for each target."""
        wanted = {name: taken_by(name) for name in self.targets}
        if not self.settings.export and {"spool", "datadog-logs"} <= wanted.keys():
            # It is for who comes later: what somebody takes now would be sent a second time.
            wanted["spool"] -= wanted["datadog-logs"]
        return wanted

    def _record(self, change: Change, report: Report) -> bool:
        """Bring a change into the ledger; return whether that is settled."""
        try:
            took_effect = self.ledger.apply(change)
            report.told = took_effect or not isinstance(change, CLAIMS)
        except LedgerError as error:
            report.ledger = str(error)
            log.warning("%s", error)
            self.spool.note(LEDGER, str(error))
            return not error.retry
        report.ledger = ""
        return True

    def _write_log(self, batch: Batch) -> None:
        try:
            append_log(self.settings.state_path / "logs", batch)
        except OSError as error:
            log.warning("the log file cannot be written: %s", error)

    def _send(self, now: list[Sending], sendings: list[Sending], report: Report) -> list[Sending]:
        """Send some side by side, and report on all; return what may be tried again."""
        threads = []
        for sending in now:
            sending.under_way = True
            thread = threading.Thread(target=self.attempt, args=(sending,), name="batchobs-send", daemon=True)
            thread.start()
            threads.append((sending, thread))
        give_up = time.monotonic() + self.settings.export_timeout
        again = []
        for sending, thread in threads:
            thread.join(max(give_up - time.monotonic(), 0))
            if thread.is_alive():
                sending.problem = f"{sending.target} did not answer within {self.settings.export_timeout:g} s"
            else:
                sending.problem = sending.reason
                if sending.reason and not sending.lost:
                    again.append(sending)
            if sending.problem:
                log.warning("%s: %s", sending.batch.name, sending.problem)
        for name in {sending.target for sending in now}:
            problems = dict.fromkeys(one.problem for one in sendings if one.target == name and one.problem)
            report.targets[name] = "; ".join(problems)
            self.spool.note(name, report.targets[name])
        return again

    def attempt(self, sending: Sending) -> None:
        """Send once; files of what was taken go, of what was not they stay."""
        sending.under_way, sending.reason, sending.lost = True, "", ""
        try:
            for entry in sending.entries:
                entry.begin()
            self._target(sending.target).send(sending.batch)
        except ExportError as error:
            sending.reason = str(error)
            if error.rejected:
                sending.lost = REJECTED
            elif error.uncertain and sending.batch.points:
                # They have no ids: a second time might count them twice. Of log lines a second is better than none.
                sending.lost = UNCERTAIN
        except ImportError as error:
            sending.reason = f"{error}: {INSTALL.format(extra=sending.target)}"
        except Exception as error:
            sending.reason = f"{type(error).__name__}: {error}"
        # An address may hold a password.
        sending.reason = redact_text(sending.reason)
        for entry in sending.entries:
            if not sending.reason or sending.lost:
                entry.remove()
            else:
                entry.refused()
        if sending.lost:
            self.drop(sending.batch, {sending.lost: 1})
        sending.attempted()

    def _target(self, name: str) -> Target:
        with self._making:
            if name not in self._made:
                self._made[name] = make_target(name, self._environ, self.settings)
            return self._made[name]


def _remove(entries: Iterable[Entry]) -> None:
    for entry in entries:
        entry.remove()


def _key(signals: frozenset[str]) -> str:
    return "+".join(sorted(signals))
