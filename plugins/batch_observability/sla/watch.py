"""
Promises that no run can tell of: what is due and did not start, what waits or hangs past its promise, what grows old.

Whoever looks, a scheduler's helper, `batchobs check` or a deadline of Airflow's, any number at once: each claims in the
ledger what it is about to tell.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from batch_observability import schema
from batch_observability.config import Settings
from batch_observability.export.deliver import Delivery
from batch_observability.export.signals import Batch, Point
from batch_observability.ledger.records import Declared, PromiseRow, Run
from batch_observability.ledger.store import LedgerError
from batch_observability.model import SLA
from batch_observability.objective import ModelError
from batch_observability.sla.judge import lateness
from batch_observability.sla.model_wide import FRESHNESS, RATE, Rate, of_model, tell_freshness, tell_rate
from batch_observability.sla.promises import (
    FROM_DUE,
    Deadline,
    Subject,
    deadlines,
    margin_s,
    model_key,
    nanoseconds,
    sla_of,
)
from batch_observability.sla.telling import AT_RISK, BROKEN, Cause, Teller

log = logging.getLogger("batch_observability.sla")


@dataclass(frozen=True, kw_only=True)
class Expected(Subject):
    """
    What is due, as who schedules it has it.

    Attributes:
        since_ns: since when it is known as a batch model.
        started_ns: start of its first try since it was last cleared, None if it has not started.
        extended_s: seconds that it was granted beyond its promises.
        settled: it has succeeded, was skipped or is not wanted any more.
        why: what is known of why it has not, in a few words.
    """

    since_ns: int
    started_ns: int | None = None
    extended_s: float = 0.0
    settled: bool = False
    why: str = ""

    @property
    def never_ran(self) -> bool:
        """Whether nobody has begun it."""
        return self.started_ns is None


@dataclass(frozen=True)
class Found:
    """A promise that was found to be at risk or broken."""

    state: str
    expected: Expected
    cause: Cause


@dataclass
class Seen:
    """
    What one look has found and told first.

    Attributes:
        told: what others had not told yet.
        complete: False if ledger or scheduler could not be asked.
    """

    told: list[tuple[str, str, str]] = field(default_factory=list)
    complete: bool = True


class Watcher:
    """
    Looks for promises that no run tells of.

    Args:
        settings: of this process.
        delivery: where to tell.
        told_by: who tells, as the ledger has it.
        env: deployment environment.
        expected: what is due and what is known of tasks; None if that cannot be asked.
    """

    def __init__(
        self,
        settings: Settings,
        delivery: Delivery,
        told_by: str,
        env: str,
        expected: Callable[[], tuple[list[Expected], list[Declared]] | None] = lambda: ([], []),
    ) -> None:
        self._settings = settings
        self._delivery = delivery
        self._env = env
        self._expected = expected
        self._teller = Teller(delivery, told_by, must_claim=True)
        self._slas: dict[str, SLA] = {}
        self._refused: set[tuple[str, str]] = set()
        self._declared: dict[tuple[str, str], Declared] = {}

    def look(
        self, *, freshness: bool = True, rates: bool = True, gauges: bool = True, now_ns: int | None = None
    ) -> Seen:
        """
        Look once, and tell what is found.

        Args:
            freshness: also look at the age of newest successes.
            rates: also look at success rates, for which all runs of their windows are counted.
            gauges: send the age of newest successes, too.
            now_ns: the moment to judge by; default: now.
        """
        now_ns = time.time_ns() if now_ns is None else now_ns
        seen, self._teller.refused = Seen(), ""
        try:
            asked = self._expected()
            if asked is None:
                seen.complete = False
            else:
                expected, declared = asked
                self._declare(declared)
                self._look_at(expected, now_ns, seen)
            if freshness or rates:
                self._look_at_models(now_ns, seen, freshness=freshness, rates=rates, gauges=gauges)
        except LedgerError as error:
            log.warning("%s", error)
            seen.complete = False
        seen.complete = seen.complete and not self._teller.refused
        return seen

    def _declare(self, declared: Iterable[Declared]) -> None:
        """Let the ledger know of tasks that may never run, and of when they are due."""
        news = [one for one in declared if self._declared.get((one.dag_id, one.task_id)) != one]
        if news:
            self._delivery.ledger.apply_all(news)
            self._declared |= {(one.dag_id, one.task_id): one for one in news}

    def _look_at(self, expected: Iterable[Expected], now_ns: int, seen: Seen) -> None:
        found = [one for each in expected for one in self._overdue(each, now_ns)]
        known = self._delivery.ledger.promises_of([one.cause.key for one in found])
        for overdue in found:
            if _is_told(overdue, known) or (one := self._granted(overdue, now_ns)) is None or _is_told(one, known):
                continue
            # What the ledger refuses it would refuse again.
            if (one.cause.key, one.state) in self._refused:
                continue
            if self._teller.promised(one.expected, one.state, one.cause):
                seen.told.append((one.state, one.expected.model["name"], one.cause.objective))
            elif not self._teller.refused:
                self._refused.add((one.cause.key, one.state))
        self._refused &= {(one.cause.key, one.state) for one in found}

    def _granted(self, found: Found, now_ns: int) -> Found | None:
        """Return what is to be told of a run after all, with the time that it was granted meanwhile."""
        if found.expected.started_ns is None or found.expected.extended_s:
            return found
        extended_s = self._delivery.ledger.standing(_run(found.expected)).extended_s
        if not extended_s:
            return found
        again = self._overdue(replace(found.expected, extended_s=extended_s), now_ns)
        return next((one for one in again if one.cause.objective == found.cause.objective), None)

    def _overdue(self, expected: Expected, now_ns: int) -> Iterator[Found]:
        sla = self._sla_of(expected.model)
        promised = deadlines(
            sla,
            due=expected.due_ns,
            start=expected.started_ns,
            backfill=expected.backfill,
            extended_s=expected.extended_s,
        )
        for name, deadline in promised.items():
            unknown = expected.due_ns is not None and expected.since_ns > expected.due_ns
            if name in FROM_DUE and expected.is_scheduled and unknown:
                continue
            if state := self._state(expected, deadline, now_ns):
                # What nobody began is missed once, whatever was promised of it.
                first = name == "start_within" or "start_within" not in promised
                yield Found(state, expected, _cause(expected, deadline, state, now_ns, first=first))

    def _state(self, expected: Expected, deadline: Deadline, now_ns: int) -> str:
        """Return what is to be told of a promise, "" if nothing is."""
        if deadline.objective == "start_within" and expected.started_ns is not None:
            return BROKEN if expected.started_ns > deadline.at_ns else ""
        if expected.settled:
            return ""
        # Who runs it has the first word: the end of a run is known here a moment later.
        at_ns = now_ns - round(self._settings.reconcile_after * 1e9)
        return BROKEN if at_ns > deadline.at_ns else AT_RISK if deadline.warn_ns <= at_ns else ""

    def _look_at_models(self, now_ns: int, seen: Seen, *, freshness: bool, rates: bool, gauges: bool) -> None:
        ledger = self._delivery.ledger
        known = ledger.newest_successes()
        slas = {name: self._sla_of(model) for name, (model, _, _) in known.items()}
        opened = {
            (one.model_name, one.objective) for one in ledger.open_promises() if one.objective in (RATE, FRESHNESS)
        }
        windows = {
            name: now_ns - nanoseconds(sla.window)
            for name, sla in slas.items()
            if rates and sla.success_rate is not None and isinstance(sla.window, timedelta)
        }
        found = {name: Rate(*one) for name, one in ledger.success_rates(windows).items()} if windows else {}
        ages = {
            name: newest or first for name, (_, first, newest) in known.items() if freshness and slas[name].freshness
        }
        # To claim costs a file and a transaction each: what is known is not claimed again.
        keys = {(name, RATE): model_key(RATE, name, rate.newest_failure_ns or 0) for name, rate in found.items()}
        keys |= {(name, FRESHNESS): model_key(FRESHNESS, name, since_ns) for name, since_ns in ages.items()}
        told_before = ledger.promises_of([key for which, key in keys.items() if which not in opened])
        points: dict[tuple[str, str], list[Point]] = {}
        for name, (model, _, _) in known.items():
            subject, sla = Subject(model=model, source="", env=self._env, resource=""), slas[name]
            if name in found:
                is_open = (name, RATE) in opened
                told = tell_rate(self._teller, subject, sla, found[name], now_ns, is_open=is_open, known=told_before)
                seen.told += [(told, name, RATE)] if told else []
            if name in ages:
                is_open = (name, FRESHNESS) in opened
                told = tell_freshness(
                    self._teller, subject, sla, ages[name], now_ns, is_open=is_open, known=told_before
                )
                seen.told += [(told, name, FRESHNESS)] if told else []
                age = Point(schema.FRESHNESS, (now_ns - ages[name]) / 1e9, of_model(subject).tags)
                points.setdefault((model["service"], model["version"]), []).append(age)
        for (service, version), found_ages in points.items() if gauges else ():
            batch = Batch(service, version, self._env, f"freshness-{service}", points=tuple(found_ages))
            # What is not taken now is of no use later: the next look knows better.
            if not self._delivery.send_now(batch):
                break

    def _sla_of(self, model: dict[str, Any]) -> SLA:
        key = repr((model.get("objectives"), model.get("terms")))
        if key not in self._slas:
            try:
                self._slas[key] = sla_of(model)
            except (ModelError, TypeError) as error:
                log.warning("%s", error)
                self._slas[key] = SLA()
        return self._slas[key]


def _run(expected: Expected) -> Run:
    names = ("source", "env", "resource", "dag_id", "task_id", "job", "dag_run_id", "map_index", "clear_number")
    values = {name: getattr(expected, name) for name in (*names, "run_id", "model", "trace_id", "span_id", "due_ns")}
    return Run(**values, start_ns=expected.started_ns or 0)


def _is_told(found: Found, known: Mapping[str, PromiseRow]) -> bool:
    row = known.get(found.cause.key)
    return row is not None and (row.breached_ns is not None or (found.state == AT_RISK and row.at_risk_ns is not None))


def _cause(expected: Expected, deadline: Deadline, state: str, now_ns: int, *, first: bool) -> Cause:
    began = expected.started_ns if deadline.objective == "start_within" else None
    left = lateness(margin_s(deadline.at_ns, now_ns if began is None else began))
    verb = "started" if began is not None else "not started" if expected.never_ran else "not finished"
    words = f"{verb}, {left}" if began is None else f"{verb} {left}"
    return Cause(
        key=expected.key(deadline.objective),
        objective=deadline.objective,
        promise=deadline.promise,
        moment_ns=deadline.at_ns if state == BROKEN else deadline.warn_ns,
        deadline_ns=deadline.at_ns,
        reason=f"{words}: {expected.why}" if expected.why else words,
        missed=first and state == BROKEN and expected.never_ran,
    )
