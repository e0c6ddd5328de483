"""
Which tasks are batch models, told by those who parse DAG files to those who do not: `<state>/models/<dag>.json`.

So a run is known for one that died before it could say anything.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_observability.airflow.attempt import as_text
from batch_observability.airflow.declared import model_of
from batch_observability.private import private_folder, write_private

_FOLDER = "models"


@dataclass(frozen=True)
class Declared:
    """The model of a task, as text, and since when it has one (Unix time in ns)."""

    model: dict[str, Any]
    since_ns: int


def declare(dag: Any, state: Path) -> None:
    """
    Write down the batch models of a DAG, if they are others than the last time.

    Raises:
        OSError: if they cannot be written.
    """
    models = {task.task_id: as_text(model) for task in dag.tasks if (model := model_of(task)) is not None}
    path = _path(state, dag.dag_id)
    if not models:
        path.unlink(missing_ok=True)
        return
    before = _read(path)
    if {task_id: one.model for (_, task_id), one in before.items()} == models:
        return
    now = Declared({}, time.time_ns())
    tasks = {
        task_id: {"model": model, "since_ns": before.get((dag.dag_id, task_id), now).since_ns}
        for task_id, model in models.items()
    }
    private_folder(path.parent)
    write_private(path, json.dumps({"dag_id": dag.dag_id, "tasks": tasks}))


def declared_since(state: Path, dag_id: str, task_id: str) -> int | None:
    """Return since when a task has a model; None if that was not written down here."""
    one = _read(_path(state, dag_id)).get((dag_id, task_id))
    return one.since_ns if one else None


def _path(state: Path, dag_id: str) -> Path:
    # Names of DAGs that differ in other characters only are told apart by the digest.
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", dag_id)[:100]
    return state / _FOLDER / f"{stem}-{hashlib.sha256(dag_id.encode()).hexdigest()[:12]}.json"


def declared(state: Path) -> dict[tuple[str, str], Declared]:
    """Return what was written down here, by DAG id and task id."""
    found: dict[tuple[str, str], Declared] = {}
    for path in (state / _FOLDER).glob("*.json"):
        found |= _read(path)
    return found


def _read(path: Path) -> dict[tuple[str, str], Declared]:
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        return {(written["dag_id"], task_id): Declared(**one) for task_id, one in written["tasks"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
