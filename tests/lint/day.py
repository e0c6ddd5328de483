"""
A day of many models in several environments, told as sidecars and `batchobs check` tell it: judged, written to a ledger
for each environment, and sent to a DogStatsD listener. What a run records, and which runs fail, is drawn here and known
to nobody else.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from batch_observability import schema
from batch_observability.config import Settings
from batch_observability.export.deliver import Delivery
from batch_observability.export.target import Choice
from batch_observability.ledger.records import Declared
from batch_observability.model import BatchModel
from batch_observability.schema import Outcome
from batch_observability.sidecar import ending
from batch_observability.sidecar.closing import close_run
from batch_observability.sidecar.observation import Observation
from batch_observability.sidecar.promises import promises_of
from batch_observability.sla.telling import AT_RISK
from batch_observability.sla.watch import Expected, Watcher
from tests.live import DogStatsDListener, wait_until
from tests.sidecar.frames import context

SECOND = 10**9
DAY = 86_400 * SECOND
# Custom metrics that one combination of a name and its tags counts as, by DogStatsD's type.
WEIGHT = {"d": 5, "c": 1, "g": 1}
ENVS = ("prod", "staging", "test", "dev", "dr")
TEAMS = [f"team-{number}" for number in range(12)]
_SLAS = (
    {},
    {"finish_by": "23:59 UTC", "success_rate": "50%"},
    {"finish_within": "20m", "freshness": "26h", "start_within": "15m"},
    {"min_rows": "10", "max_rejected_ratio": "0.1", "min_duration": "1s"},
    {"finish_within": "1h", "success_rate": "60%"},
)
_STAGES = ("load", "clean", "features", "train", "score", "check", "publish")
_FAILING, _BREAKING = 0.05, 0.02


@dataclass(frozen=True)
class Runner:
    """What runs a model: its source, its tags, and what its runs record."""

    model: BatchModel
    source: str
    resource: str
    tags: dict[str, str]
    stages: tuple[str, ...]
    measurements: tuple[str, ...]


def write(folder: Path, count: int) -> list[Runner]:
    """Write a catalog of so many models, and DAG files of a tenth of them; return what runs them."""
    chance = random.Random(7)
    text, runners = "models:\n", []
    for number in range(count):
        name, sla = f"model-{number:03}", _SLAS[number % len(_SLAS)]
        fields = {"name": name, "owner": TEAMS[number % 12], "tier": number % 3 + 1, "service": f"s-{number // 2}"}
        model = BatchModel(**fields, sla=sla or None)
        stages = tuple(chance.sample(_STAGES, chance.randint(3, 7)))
        measurements = ("mae", "drift")[: chance.choice((0, 1, 1, 2))]
        recorded = {"stages": stages, "measurements": measurements}
        tasks = [(f"{name}_daily", "score")]
        if number < count // 10:
            tasks = [(f"{name}_daily", "score"), (f"{name}_daily", "report")][: 1 + number % 2]
            (folder / f"{name.replace('-', '_')}.py").write_text(_dag(fields, sla, tasks, recorded), encoding="utf-8")
        else:
            text += "".join(
                f"  {'- ' if not at else '  '}{key}: {one}\n" for at, (key, one) in enumerate(fields.items())
            )
            text += f"    sla: {{{', '.join(f'{key}: {one!r}' for key, one in sla.items())}}}\n" if sla else ""
            if number % 3:
                text += f"    match: {{dag_id: {name}_*, task_id: score}}\n"
            else:
                text, tasks = text + "    schedule: 10 3 * * *\n", []
                runners.append(Runner(model, "cron", name, {"job": name}, **recorded))
        of_airflow = [(f"{dag_id}.{task_id}", {"dag_id": dag_id, "task_id": task_id}) for dag_id, task_id in tasks]
        runners += [Runner(model, "airflow", resource, tags, **recorded) for resource, tags in of_airflow]
    (folder / "batch_models.yaml").write_text(text, encoding="utf-8")
    return runners


def _dag(fields, sla, tasks, recorded) -> str:
    given = ", ".join(f"{key}={value!r}" for key, value in fields.items())
    lines = [
        "from batch_observability import SLA, BatchModel, BatchModelMixin, current_run",
        "from airflow.sdk import DAG, BaseOperator",
        f"MODEL = BatchModel({given}, sla=SLA({', '.join(f'{key}={value!r}' for key, value in sla.items())}))",
        "class Score(BatchModelMixin, BaseOperator):",
        "    model = MODEL",
        "    def execute(self, context):",
        *(f"        with self.batch.stage({stage!r}): pass" for stage in recorded["stages"]),
        *(f"        self.batch.measure({name!r}, 1.0)" for name in recorded["measurements"]),
        f"with DAG({tasks[0][0]!r}):",
        *(f"    Score(task_id={task_id!r})" for _, task_id in tasks),
    ]
    return "\n".join(lines) + "\n"


def _declared(runner: Runner) -> Declared:
    """Return that a task or job is known since a day."""
    task_id = runner.tags.get("task_id", runner.resource)
    model, since_ns = runner.model.as_text(), time.time_ns() - DAY
    dag_id = runner.tags.get("dag_id", "")
    return Declared(dag_id=dag_id, task_id=task_id, source=runner.source, model=model, since_ns=since_ns)


def emitted(folder: Path, envs: Sequence[str], count: int) -> tuple[int, dict[str, int]]:
    """
    Let a day pass, of models that are written to a folder.

    Returns:
        The custom metrics that a listener has seen, in all and by metric.
    """
    runners = write(folder, count)
    # A path of a Unix socket has at most 107 bytes; it loses nothing: whoever sends waits until there is room. What the
    # hosts write is thrown away: it need not survive a power cut.
    with (
        tempfile.TemporaryDirectory(prefix="day-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as state,
        DogStatsDListener(Path(state, "dsd.socket")) as listener,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("DD_DOGSTATSD_URL", listener.url)
        patch.setenv("DD_TRACE_ENABLED", "false")
        for env in envs:
            settings = Settings(export=("datadog",), state_dir=f"{state}/{env}", ledger_timeout=30.0)
            delivery = Delivery(settings, Choice(("datadog",), ()), patience_s=0)
            delivery.ledger.migrate()
            Day(env, delivery, seed=1).run(runners)
            delivery._made["datadog"]._statsd.close_socket()
            delivery.ledger.close()
        sent = {(metric.name, metric.type, metric.tags) for metric in _drained(listener)}
        assert listener.malformed() == []
    by_metric = dict.fromkeys(schema.METRICS, 0)
    for name, kind, _ in sent:
        by_metric[name] += WEIGHT[kind]
    return sum(by_metric.values()), by_metric


def _drained(listener: DogStatsDListener) -> list[Any]:
    """Return the metrics when no more come."""
    counts: list[int] = []

    def still() -> bool:
        counts.append(len(listener.metrics()))
        return len(counts) > 5 and counts[-1] == counts[-5] > 0

    wait_until(still, "all has arrived", 60, lambda: counts[-3:], every=0.05)
    return listener.metrics()


class Day:
    """
    A day in one environment.

    Args:
        env: the environment.
        delivery: where it is told, with a ledger of the environment.
        seed: what happens.
    """

    def __init__(self, env: str, delivery: Delivery, seed: int) -> None:
        self._env = env
        self._delivery = delivery
        self._chance = random.Random(f"{seed}-{env}")
        self._number = 0

    def run(self, runners: list[Runner]) -> None:
        """Let everything run that is due: some of it fails, is late, or never comes."""
        missed = []
        self._delivery.ledger.apply_all([_declared(runner) for runner in runners])
        for runner in runners:
            promised = runner.model.objectives()
            if "start_within" in promised and self._chance.random() < _BREAKING:
                missed.append(self._expected(runner))
            if self._chance.random() < _FAILING:
                again = runner.source == "airflow"
                self._attempt(runner, Outcome.RETRYING if again else Outcome.FAILED)
                if again and self._chance.random() < 0.5:
                    self._attempt(runner, self._chance.choice((Outcome.FAILED, Outcome.TIMED_OUT)), try_number=2)
            late = "finish_within" in promised and self._chance.random() < _BREAKING
            self._attempt(runner, Outcome.SUCCESS, late=late)
        watcher = Watcher(self._delivery.settings, self._delivery, "check", self._env, lambda: (missed, []))
        watcher.look()

    def _expected(self, runner: Runner) -> Expected:
        now_ns = time.time_ns()
        return Expected(
            model=runner.model.as_text(),
            source=runner.source,
            env=self._env,
            resource=runner.resource,
            slot="due 1",
            due_ns=now_ns - 7200 * SECOND,
            since_ns=now_ns - DAY,
            **runner.tags,
        )

    def _attempt(self, runner: Runner, outcome: Outcome, *, late: bool = False, try_number: int = 1) -> None:
        self._number += 1
        now_ns = time.time_ns()
        begin_ns = now_ns - (3700 if late else 60) * SECOND
        attempt = context(
            run_id=f"{self._env}-{self._number}",
            source=runner.source,
            resource=runner.resource,
            model=runner.model.as_text(),
            tags=runner.tags,
            attributes={"airflow.task_instance.try_number": try_number},
            start_ns=begin_ns,
            due_ns=begin_ns - SECOND,
            slot=f"due {self._number}",
            declared_ns=now_ns - DAY,
            env=self._env,
        )
        seen = Observation(attempt, 100)
        for number, stage in enumerate(runner.stages, 1):
            seen.add({"t": "stage", "ts": begin_ns, "id": number, "name": stage, "parent": 0})
            seen.add({"t": "stage_end", "ts": begin_ns + SECOND, "id": number, "error": None})
        seen.add({"t": "rows", "ts": begin_ns, "pid": 1, "read": 1000, "written": 990, "rejected": 10})
        for name in runner.measurements:
            seen.add({"t": "measure", "ts": begin_ns, "name": name, "value": 0.5, "unit": ""})
        seen.add({"t": "end", "ts": now_ns, "outcome": outcome.value, "error": None})
        promises = promises_of(seen, self._delivery, "sidecar", pid=1, host="worker")
        promises.begin()
        if late and (deadline := promises.deadlines().get("finish_within")):
            promises.tell([(AT_RISK, deadline)])
        close_run(
            seen,
            ending.told(seen, 1),
            promises,
            self._delivery,
            host="worker",
            token=attempt.run_id,
            closed_by="sidecar",
            with_start=True,
            patience_s=5,
        )
