"""Endings of a run made from frames, without a process."""

from __future__ import annotations

from batch_observability.sidecar import ending, telling
from batch_observability.sidecar.observation import Observation
from batch_observability.sidecar.process import Death
from tests.sidecar.frames import at, context

PID, HOST = 4711, "worker-1"
BROKEN = {"type": "ValueError", "message": "no such airport", "stack": "Traceback..."}
TAGS = {
    "env": "test",
    "service": "churn-service",
    "version": "3",
    "model": "churn",
    "owner": "team-churn",
    "tier": "2",
    "source": "airflow",
    "dag_id": "dag",
    "task_id": "task",
}


def observed(*frames, run=None, max_stages=100):
    observation = Observation(run or context(), max_stages)
    observation.cpu_s, observation.memory_peak = 2.5, 50_000_000
    for frame in frames:
        observation.add(frame)
    return observation


def told(*frames, run=None, with_start=True):
    observation = observed(*frames, run=run)
    return telling.finished(observation, ending.told(observation, PID), host=HOST, with_start=with_start)


def found_dead(*frames, run=None, death=None, silent=False, seconds=10.0, out_of_memory=""):
    observation = observed(*frames, run=run)
    death = death or Death(signal="SIGKILL")
    end = ending.found_dead(observation, PID, death, at(seconds), silent=silent, out_of_memory=out_of_memory)
    return observation, end


def died(*frames, **how):
    return telling.finished(*found_dead(*frames, **how), host=HOST, with_start=True)


def points(batch, name):
    return [(point.value, point.tags) for point in batch.points if point.metric.name == f"batch_model.{name}"]
