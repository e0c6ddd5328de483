"""
The promises of a run that goes on: its clock, and what is told when it rings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import timedelta

from batch_observability.export.deliver import Delivery
from batch_observability.ledger.records import Declared, Extended, Run
from batch_observability.ledger.store import Ledger, LedgerError, Standing
from batch_observability.model import SLA
from batch_observability.objective import ModelError, format_duration
from batch_observability.run import RunContext
from batch_observability.sidecar import row
from batch_observability.sidecar.observation import Observation
from batch_observability.sla.clock import Clock, Due
from batch_observability.sla.judge import lateness
from batch_observability.sla.model_wide import Rate
from batch_observability.sla.promises import FROM_DUE, Deadline, deadlines, margin_s, sla_of, subject_of
from batch_observability.sla.telling import AT_RISK, BROKEN, Cause, Teller

log = logging.getLogger("batch_observability.sidecar")


class Promises:
    """
    What a run has promised to be in time for.

    Args:
        observation: of the run, from which it is heard when time is granted.
        delivery: where to tell.
        run: as the ledger has it.
        told_by: who tells, as the ledger has it.
    """

    def __init__(self, observation: Observation, delivery: Delivery, run: Run, told_by: str) -> None:
        self._observation = observation
        self._context = observation.context
        self._delivery = delivery
        self.run = run
        self.sla = _sla(self._context)
        self.subject = subject_of(self._context)
        self.teller = Teller(delivery, told_by, must_claim=False)
        self.first_start_ns = self._context.start_ns
        # Seconds that earlier tries granted themselves, and what of this one's is heard by now.
        self._granted_s = self._heard_s = 0.0
        self._clock = Clock({})

    def begin(self) -> list[Due]:
        """Set the clock; return what is broken already because the run began too late."""
        if not self._context.is_first_try and self.sla.finish_within is not None:
            self.look_back(self.standing(self._delivery.settings.ledger_timeout))
        self._clock.move(self._to_finish())
        start = self.deadlines().get("start_within")
        if start is None or not self._context.is_first_try or self._context.start_ns <= start.at_ns:
            return []
        return [(BROKEN, start)]

    def standing(self, patience_s: float) -> Standing | None:
        """Return what the ledger knows that matters to the promises; None if it does not say so in time."""
        settings = self._delivery.settings
        try:
            return Ledger(settings.ledger, min(patience_s, settings.ledger_timeout)).standing(self.run)
        except LedgerError as error:
            log.warning("%s", error)
            return None

    def look_back(self, standing: Standing | None) -> None:
        """Count from the first try, with what that was granted."""
        if standing is None or self._context.is_first_try:
            return
        if standing.first_start_ns is not None:
            self.first_start_ns = min(standing.first_start_ns, self._context.start_ns)
        # What this try was granted is in the ledger already.
        self._granted_s = max(standing.extended_s - self._observation.extended_s, 0.0)

    def rate(self, since_ns: int) -> Rate:
        """
        Return how many runs of the model have succeeded since a moment.

        Raises:
            LedgerError: if the ledger cannot be asked.
        """
        return Rate(*self._delivery.ledger.success_rate(self.subject.model["name"], since_ns))

    @property
    def extended_s(self) -> float:
        """Seconds that the run was granted, all tries together."""
        return self._granted_s + self._observation.extended_s

    def deadlines(self) -> dict[str, Deadline]:
        """By when each promise that a clock judges is to be kept."""
        return deadlines(
            self.sla,
            due=self._context.due_ns,
            start=self.first_start_ns,
            backfill=self._context.backfill,
            extended_s=self.extended_s,
        )

    def _to_finish(self) -> dict[str, Deadline]:
        return {name: one for name, one in self.deadlines().items() if name != "start_within"}

    def patience_s(self) -> float:
        """Seconds until the clock rings."""
        if self._is_extended:
            return 0.0
        moment = self._clock.next_ns
        return float("inf") if moment is None else max(moment - time.time_ns(), 0) / 1e9

    @property
    def _is_extended(self) -> bool:
        return self._observation.extended_s > self._heard_s

    def due(self) -> tuple[list[Due], bool]:
        """Return what is at risk or broken by now, each once, and whether time was granted meanwhile."""
        granted = self._is_extended
        if granted:
            self._heard_s = self._observation.extended_s
            self._clock.move(self._to_finish())
        return self._clock.ring(time.time_ns()), granted

    def tell(self, due: Sequence[Due], *, granted: bool = False) -> None:
        """Tell what `begin` or `due` gave."""
        if granted:
            change = Extended(run=self.run, total_s=self._observation.extended_s)
            self.teller.extended(self.subject, change, self._observation.extended_for)
        for state, deadline in due:
            self.declare(deadline.objective)
            self.teller.promised(self.subject, state, self._cause(state, deadline))

    def declare(self, objective: str) -> None:
        """Say since when the task is known, if an objective depends on it: the ledger may not have heard it yet."""
        known = self._context.declared_ns
        if objective not in FROM_DUE or not self.subject.is_scheduled or known is None:
            return
        change = Declared(
            dag_id=self.subject.dag_id,
            task_id=self.subject.task_id or self.subject.job,
            source=self.subject.source,
            model=self.subject.model,
            since_ns=known,
        )
        self._delivery.record(f"{self._context.run_id}-declared", change)

    def _cause(self, state: str, deadline: Deadline) -> Cause:
        left = margin_s(deadline.at_ns, time.time_ns())
        if deadline.objective == "start_within":
            reason = f"started {lateness(margin_s(deadline.at_ns, self._context.start_ns))}"
        elif state == AT_RISK:
            reason = f"not finished, {format_duration(timedelta(seconds=max(round(left), 0)))} left"
        else:
            reason = f"not finished, {lateness(left)}"
        stage = self._observation.innermost_open_stage
        return Cause(
            key=self.subject.key(deadline.objective),
            objective=deadline.objective,
            promise=deadline.promise,
            moment_ns=deadline.at_ns if state == BROKEN else max(deadline.warn_ns, self._context.start_ns),
            deadline_ns=deadline.at_ns,
            reason=f"{reason}, in stage {stage.name}" if stage else reason,
        )


def _sla(context: RunContext) -> SLA:
    try:
        return sla_of(context.model)
    except ModelError as error:
        # An observer of another version.
        log.warning("%s", error)
        return SLA()


def promises_of(observation: Observation, delivery: Delivery, told_by: str, *, pid: int, host: str) -> Promises:
    """Return the promises of a run with a process on a host."""
    return Promises(observation, delivery, row.run_row(observation.context, pid, host), told_by)
