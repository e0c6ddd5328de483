"""
The process that judges DAG runs of which the triggerer was told that they hang (deadline.py).

It knows what Airflow said of the DAG run and of the states of its tasks, and what the ledger has: no more is needed of
what has not begun. What has is watched by the run itself.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any

from batch_observability.airflow import registry
from batch_observability.airflow.attempt import SOURCE
from batch_observability.airflow.expected import why
from batch_observability.channel import Frame, FrameReader
from batch_observability.config import Settings
from batch_observability.export.deliver import Delivery
from batch_observability.export.log_file import log_problems_to
from batch_observability.export.target import choose
from batch_observability.ledger.records import Declared, Run
from batch_observability.sla.promises import due_ns, is_backfill, slot_of, unix_ns
from batch_observability.sla.watch import Expected, Seen, Watcher

log = logging.getLogger("batch_observability.judge")

_MAPPED = re.compile(r"(.+)_(\d+)")


def judge_for_triggerer(sock: socket.socket) -> None:
    """Judge DAG runs that hang, until the triggerer has no more of them."""
    reader = FrameReader()
    # What came meanwhile is judged together.
    batches = (list(reader.feed(data)) for data in iter(lambda: sock.recv(1 << 18), b""))
    first = next((batch for batch in batches if batch), [])
    if not first or first[0]["t"] != "judge":
        return
    begin, frames = first[0], first[1:]
    sys.path.extend(path for path in begin["path"] if path not in sys.path)
    settings = Settings.from_frame(begin["settings"])
    log_problems_to(settings.state_path / "logs")
    choice = choose(settings, os.environ, airflow_tracing=begin["airflow_tracing"])
    delivery = Delivery(settings, choice, patience_s=0)
    for batch in chain([frames], batches):
        try:
            look(settings, delivery, begin["env"], batch)
        except Exception:
            log.warning("deadlines of %s DAG runs are not judged", len(batch), exc_info=True)


def look(settings: Settings, delivery: Delivery, env: str, frames: Collection[Frame]) -> Seen:
    """
    Tell what is broken of DAG runs.

    Args:
        settings: of the triggerer.
        delivery: where to tell.
        env: deployment environment.
        frames: of each `dag_run` as Airflow's API has it, and `waiting`: names and states of its tasks that wait.
    """

    def expected() -> tuple[list[Expected], list[Declared]]:
        waiting = _Waiting(delivery, env, registry.declared(settings.state_path))
        found = [one for frame in frames for one in waiting.of(frame["dag_run"], frame["waiting"])]
        return found, waiting.news(found)

    if not frames:
        return Seen()
    return Watcher(settings, delivery, "deadline", env, expected).look(freshness=False, rates=False)


class _Waiting:
    """What is known of task instances that wait, from ledger and registry."""

    def __init__(self, delivery: Delivery, env: str, declared: dict[tuple[str, str], registry.Declared]) -> None:
        self._delivery = delivery
        self._env = env
        self._observed = delivery.ledger.observed_tasks()
        self._declared = declared

    def of(self, dag_run: dict[str, Any], waiting: dict[str, str | None]) -> list[Expected]:
        """Return what is due of a DAG run."""
        return [one for one in self._due(dag_run, waiting) if self._never_ran(one)]

    def news(self, found: Iterable[Expected]) -> list[Declared]:
        """Return what the ledger has to know first. Of a task that it knows, the helper has told it more."""
        tasks = {(one.dag_id, one.task_id): one for one in found}
        return [
            Declared(dag_id=dag_id, task_id=task_id, source=SOURCE, model=one.model, since_ns=one.since_ns)
            for (dag_id, task_id), one in tasks.items()
            if (dag_id, task_id) not in self._observed
        ]

    def _due(self, dag_run: dict[str, Any], waiting: dict[str, str | None]) -> Iterator[Expected]:
        run_type, dag_id, run_id = dag_run["run_type"], dag_run["dag_id"], dag_run["dag_run_id"]
        due = due_ns(run_type, _ns(dag_run["run_after"]), _ns(dag_run["queued_at"] or dag_run["run_after"]))
        for name, state in waiting.items():
            task_id, map_index, known = self._task(dag_id, name)
            if known is None:
                continue
            yield Expected(
                model=known.model,
                source=SOURCE,
                env=self._env,
                resource=f"{dag_id}.{task_id}",
                dag_id=dag_id,
                task_id=task_id,
                dag_run_id=run_id,
                map_index=map_index,
                slot=slot_of(run_type, due, run_id),
                due_ns=due,
                backfill=is_backfill(run_type),
                since_ns=known.since_ns,
                why=why(state, dag_run["state"]),
            )

    def _task(self, dag_id: str, name: str) -> tuple[str, int, registry.Declared | None]:
        """Return what an instance is called: a mapped one is `<task_id>_<map_index>` to Airflow's API."""
        mapped = _MAPPED.fullmatch(name)
        if mapped and self._model(dag_id, name) is None:
            return mapped[1], int(mapped[2]), self._model(dag_id, mapped[1])
        return name, -1, self._model(dag_id, name)

    def _model(self, dag_id: str, task_id: str) -> registry.Declared | None:
        """Return the model as told on this host, else as the ledger has it; since when, the ledger knows then."""
        model = self._observed.get((dag_id, task_id))
        return self._declared.get((dag_id, task_id)) or (registry.Declared(model, 0) if model else None)

    def _never_ran(self, one: Expected) -> bool:
        """Whether it waits for its first try: a retry waits too."""
        run = Run(
            run_id="",
            source=SOURCE,
            resource=one.resource,
            env=self._env,
            model=one.model,
            dag_id=one.dag_id,
            task_id=one.task_id,
            dag_run_id=one.dag_run_id,
            map_index=one.map_index,
            trace_id=0,
            span_id=0,
            start_ns=0,
        )
        return self._delivery.ledger.standing(run).first_start_ns is None


def _ns(moment: str) -> int:
    return unix_ns(datetime.fromisoformat(moment))
