"""
Which tasks are batch models, told by those who parse DAG files to those who do not: `<state>/models/<dag>.json`.

So a run is known for one that died before it could say anything.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from batch_observability.airflow.attempt import as_text
from batch_observability.airflow.declared import model_of
from batch_observability.private import private_folder, write_private

_FOLDER = "models"


def declare(dag: Any, state: Path) -> None:
    """
    Write down the batch models of a DAG, if they are others than the last time.

    Raises:
        OSError: if they cannot be written.
    """
    models = {task.task_id: as_text(model) for task in dag.tasks if (model := model_of(task)) is not None}
    # Names of DAGs that differ in other characters only are told apart by the digest.
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", dag.dag_id)[:100]
    path = state / _FOLDER / f"{stem}-{hashlib.sha256(dag.dag_id.encode()).hexdigest()[:12]}.json"
    text = json.dumps({"dag_id": dag.dag_id, "tasks": models}, sort_keys=True)
    if not models:
        path.unlink(missing_ok=True)
        return
    try:
        if path.read_text(encoding="utf-8", errors="replace") == text:
            return
    except FileNotFoundError:
        private_folder(path.parent)
    write_private(path, text)


def declared(state: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the models that were written down here, by DAG id and task id."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in (state / _FOLDER).glob("*.json"):
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            found |= {(written["dag_id"], task_id): model for task_id, model in written["tasks"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found
