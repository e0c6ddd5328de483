"""
The second layer: runs that nobody has told the end of are closed from Airflow's own records.

Sidecars tell nearly all. What is left is what died with its sidecar: a host, a container, a run that was deferred and
never came back. Whoever closes a run first in the ledger tells it; any number of schedulers may look at once.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from batch_observability import schema
from batch_observability.airflow import registry
from batch_observability.airflow.attempt import SOURCE, Attempt
from batch_observability.airflow.dag_run_spans import carried_place, derived_place
from batch_observability.airflow.records import Records, Row
from batch_observability.airflow.registry import Declared
from batch_observability.config import Settings
from batch_observability.context import context_of
from batch_observability.export.deliver import Delivery
from batch_observability.export.signals import Error
from batch_observability.ids import derive_span_id
from batch_observability.ledger.records import OpenRun
from batch_observability.ledger.store import LedgerError
from batch_observability.run import RunContext
from batch_observability.schema import Outcome
from batch_observability.sidecar.closing import close_run
from batch_observability.sidecar.ending import Ending, judged
from batch_observability.sidecar.journal import Entry, Journal, run_ids
from batch_observability.sidecar.observation import Observation, restore
from batch_observability.sidecar.promises import promises_of

log = logging.getLogger("batch_observability.helper")

# States of a try that will not change by themselves.
_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
# States of a try in the history that was taken away while it ran.
_TAKEN_AWAY = frozenset(
    {"running", "restarting", "deferred", "up_for_reschedule", "queued", "scheduled", None, "removed"}
)
# A helper that starts looks back as far as this: the scheduler may have been down.
_LOOK_BACK = timedelta(days=1)


@dataclass
class _Case:
    """A run that may have to be closed: what the ledger, its journal on this host and Airflow know of it."""

    run_id: str
    open_run: OpenRun | None = None
    journal: Journal | None = None
    entry: Entry | None = None
    known: Observation | None = None
    row: Row | None = None
    model: dict[str, Any] | None = None


class Reconciler:
    """
    Compares Airflow's records with the ledger.

    Args:
        settings: of the scheduler.
        delivery: where to tell.
        records: of Airflow.
        hosts: names by which Airflow knows this host.
        env: deployment environment.
        task_spans: the helper sends task spans, for run spans to hang under.
    """

    def __init__(
        self,
        settings: Settings,
        delivery: Delivery,
        records: Records,
        hosts: Collection[str],
        env: str,
        *,
        task_spans: bool,
    ) -> None:
        self._settings = settings
        self._delivery = delivery
        self._records = records
        self._hosts = {"", *hosts}
        self._env = env
        self._task_spans = task_spans
        self._looked_back = False
        # Runs whose process is gone: when that was first seen, in seconds of the monotonic clock.
        self._gone: dict[str, float] = {}

    def run(self, ended: Collection[tuple[str, str]] = ()) -> list[str] | None:
        """
        Close what is to be closed.

        Args:
            ended: DAG id and run id of DAG runs that have ended since the last time.

        Returns:
            The ids of the runs that this has closed; None if ledger or Airflow's database did not answer.
        """
        try:
            cases = self._cases(ended)
        except LedgerError as error:
            log.warning("%s", error)
            return None
        known = self._records.by_id(cases) if cases else {}
        if known is None:
            return None
        closed = []
        for case in cases.values():
            case.row = case.row or known.get(case.run_id)
            try:
                if self._is_due(case) and self._close(case):
                    closed.append(case.run_id)
            except Exception:
                log.warning("run %s cannot be closed", case.run_id, exc_info=True)
            finally:
                if case.journal is not None:
                    case.journal.release()
        self._gone = {run_id: since for run_id, since in self._gone.items() if run_id in cases}
        return closed

    def _cases(self, dag_runs: Collection[tuple[str, str]]) -> dict[str, _Case]:
        """Find runs that are open in the ledger, have a journal here, or that only Airflow knows to have ended."""
        ledger = self._delivery.ledger
        cases = {one.run.run_id: _Case(one.run.run_id, one) for one in ledger.open_runs(SOURCE)}
        for run_id in run_ids(self._settings.state_path):
            case = cases.setdefault(run_id, _Case(run_id))
            case.journal = Journal(self._settings.state_path, run_id)
        declared = registry.declared(self._settings.state_path)
        models = {**ledger.observed_tasks(), **{task: one.model for task, one in declared.items()}}
        since = None if self._looked_back else datetime.now(UTC) - _LOOK_BACK
        rows = self._records.of_dags({dag_id for dag_id, _ in models}, since)
        for dag_run in dag_runs:
            rows += self._records.tries(*dag_run)
        ended = {str(row["id"]): row for row in rows if _task(row) in models and _has_run(row)}
        self._looked_back = True
        told = ledger.outcomes(ended.keys() - cases.keys())
        for run_id, row in ended.items():
            if run_id in cases:
                cases[run_id].row = row
            elif run_id not in told and not _before(row, declared.get(_task(row))):
                cases[run_id] = _Case(run_id, row=row, model=models[_task(row)])
        return cases

    def _is_due(self, case: _Case) -> bool:
        if self._delivery.spool.holds_change_of(case.run_id):
            # Its sidecar has told it, to the disk of this host.
            return False
        if case.journal is not None:
            try:
                case.entry = case.journal.take()
                if case.entry is None:
                    # Its sidecar lives, or has just ended.
                    return False
                case.known = restore(case.entry.observation)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("the journal of run %s cannot be used: %s", case.run_id, error)
                case.entry = None
            if case.known is not None and case.known.context.source != SOURCE:
                return False
        gone_s = self._gone_for(case)
        if case.row is None:
            # A DAG run that was deleted; or, in a ledger that several Airflows share, one of another.
            return gone_s >= self._settings.reconcile_after or (
                not self._delivery.ledger.shared and case.open_run is not None and self._is_old(case.open_run)
            )
        if not _has_ended(case.row):
            return gone_s >= self._settings.reconcile_after
        elsewhere = case.row["hostname"] not in self._hosts
        if elsewhere and not self._delivery.ledger.shared and case.entry is None and case.open_run is None:
            # A ledger on this host does not know what the sidecars of another have told.
            return False
        ended = case.row["end_date"] or case.row["updated_at"]
        return bool(datetime.now(UTC) - ended >= timedelta(seconds=self._settings.reconcile_after))

    def _gone_for(self, case: _Case) -> float:
        """Return for how many seconds the process of a run is known to be gone; less than 0 if it is not."""
        if case.entry is None or not case.entry.process_gone:
            return -1.0
        return time.monotonic() - self._gone.setdefault(case.run_id, time.monotonic())

    def _is_old(self, open_run: OpenRun) -> bool:
        return time.time_ns() - open_run.run.start_ns > self._settings.reconcile_after * 1e9

    def _close(self, case: _Case) -> bool:
        observation, host, start_told = self._observation(case)
        end = self._ending(case, observation)
        if observation.phase > 1 and observation.paused_ns is None:
            observation.close_phase(None)
        token = f"{case.run_id}-{time.time_ns()}"
        report = close_run(
            observation,
            end,
            promises_of(observation, self._delivery, "helper", pid=end.pid, host=host),
            self._delivery,
            host=host,
            token=token,
            closed_by="scheduler",
            with_start=not start_told,
            patience_s=self._settings.ledger_timeout,
            # Its sidecar may be about to tell it, and sends what it cannot claim.
            must_claim=True,
        )
        if case.journal is not None and not report.ledger:
            case.journal.remove()
        return report.told

    def _observation(self, case: _Case) -> tuple[Observation, str, bool]:
        """Return what is known of the run, its host, and whether its start was told."""
        if case.entry is not None and case.known is not None:
            return case.known, case.entry.host, case.entry.start_told
        if case.open_run is not None:
            run, state = case.open_run.run, case.open_run.state
            if state:
                return restore(json.loads(state)), run.host, True
            context = context_of(case.open_run.context)
            begun = Observation(context, self._settings.max_stages, phase_began_ns=context.start_ns)
            return begun, run.host, True
        context = self._context(case)
        observation = Observation(context, self._settings.max_stages, phase_began_ns=context.start_ns)
        return observation, (case.row or {}).get("hostname") or "", False

    def _context(self, case: _Case) -> RunContext:
        """Return what Airflow knows of a run that has never said anything."""
        row = case.row or {}
        keys = ("dag_id", "run_id", "task_id", "map_index", "try_number")
        attempt = Attempt(case.run_id, *(row[key] for key in keys))
        place = carried_place(row) or derived_place(attempt.dag_id, attempt.run_id)
        parent_id = derive_span_id(schema.TASK, case.run_id) if self._task_spans else place.span_id or None
        return RunContext(
            **attempt.of_run(place.trace_id),
            model=case.model or {},
            parent_id=parent_id,
            orphan_parent_id=parent_id,
            start_ns=int(row["start_date"].timestamp() * 1e9),
            env=self._env,
        )

    def _ending(self, case: _Case, observation: Observation) -> Ending:
        row, verdict = case.row, self._delivery.ledger.verdict(case.run_id)
        ended = row and (row["end_date"] or row["updated_at"])
        end_ns = int(ended.timestamp() * 1e9) if ended and row and _has_ended(row) else time.time_ns()
        outcome, error = self._outcome(case, observation)
        pid = case.entry.pid if case.entry else case.open_run.run.pid if case.open_run else 0
        end = Ending(outcome, end_ns, pid, error)
        return judged(observation, end, verdict.outcome, verdict.reason) if verdict else end

    def _outcome(self, case: _Case, observation: Observation) -> tuple[Outcome, Error | None]:
        row = case.row
        if row is None:
            return Outcome.LOST, Error("Lost", "its process is gone, and Airflow has no record of it any more")
        state = row["state"]
        if state in ("success", "skipped"):
            return Outcome(state), None
        if given_up := self._records.given_up(row):
            kind = Outcome.LOST if given_up.startswith("heartbeat") else Outcome.KILLED
            return kind, Error(kind.value.capitalize(), given_up[:1000])
        if not _has_ended(row):
            return Outcome.KILLED, Error("Killed", "its process and its observer are gone; Airflow has not noticed yet")
        if observation.asked_to_end is not None or (row["past"] and state in _TAKEN_AWAY):
            return Outcome.CANCELLED, Error("Cancelled", "stopped by Airflow: it was cleared while it ran")
        if state in ("upstream_failed", "removed"):
            return Outcome.CANCELLED, Error("Cancelled", f"Airflow made it {state} while it ran")
        if case.entry is None and case.open_run is None:
            again = Outcome.RETRYING if row["past"] else Outcome.FAILED
            return again, Error("TaskFailed", "it failed before it could be observed; see its log in Airflow")
        if observation.paused_ns is not None:
            return Outcome.FAILED, Error("TaskFailed", "Airflow failed it while it was deferred or rescheduled")
        return Outcome.KILLED, Error("Killed", "its process and its observer were killed together; Airflow says failed")


def _has_ended(row: Row) -> bool:
    return bool(row["past"] or row["state"] in _ENDED)


def _has_run(row: Row) -> bool:
    """Whether a try has ended that a process worked on."""
    return bool(row["try_number"] and row["start_date"] and row["end_date"] and _has_ended(row))


def _task(row: Row) -> tuple[str, str]:
    return row["dag_id"], row["task_id"]


def _before(row: Row, declared: Declared | None) -> bool:
    """Whether a try is from before its task was a batch model."""
    return declared is not None and row["start_date"].timestamp() * 1e9 < declared.since_ns
