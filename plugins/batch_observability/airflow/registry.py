"""
Which tasks are batch models, told by those who parse DAG files to those who do not: `<state>/models/<dag>.json`.

So a run is known for one that died before it could say anything.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from batch_observability.airflow.attempt import as_text
from batch_observability.airflow.declared import model_in_code, model_of
from batch_observability.catalog.merging import as_given
from batch_observability.model import BatchModel
from batch_observability.private import private_folder, write_private

_FOLDER = "models"


@dataclass(frozen=True)
class Declared:
    """
    The model of a task.

    Attributes:
        model: as text.
        since_ns: since when it has one (Unix time in ns).
        code: what of it is written in the DAG file, as text by field; None if the task is it by the catalog alone.
    """

    model: dict[str, Any]
    since_ns: int
    code: dict[str, str] | None = None


def declare(dag: Any, state: Path) -> None:
    """
    Write down the batch models of a DAG, if they are others than the last time.

    Raises:
        OSError: if they cannot be written.
    """
    models = {task.task_id: _declared(task, model) for task in dag.tasks if (model := model_of(task)) is not None}
    path = _path(state, dag.dag_id)
    if not models:
        path.unlink(missing_ok=True)
        return
    before = _read(path)
    # Since when is known from before.
    models = {
        task_id: replace(one, since_ns=before[dag.dag_id, task_id].since_ns) if (dag.dag_id, task_id) in before else one
        for task_id, one in models.items()
    }
    if {task_id: one for (_, task_id), one in before.items()} == models:
        return
    tasks = {task_id: asdict(one) for task_id, one in models.items()}
    private_folder(path.parent)
    write_private(path, json.dumps({"dag_id": dag.dag_id, "tasks": tasks}))


def _declared(task: Any, model: BatchModel) -> Declared:
    in_code = model_in_code(task)
    return Declared(as_text(model), time.time_ns(), None if in_code is None else as_given(in_code))


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
