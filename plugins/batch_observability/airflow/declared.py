"""
Which batch model a task is: by the mixin, the task decorator, or a marked callable, with what the catalog adds; or by
the catalog alone, if a pattern there matches a task that declares nothing.
"""

from __future__ import annotations

import os
import time
from typing import Any, cast

from batch_observability.airflow import compat
from batch_observability.catalog.lookup import Lookup
from batch_observability.catalog.merging import merged
from batch_observability.catalog.places import paths_of
from batch_observability.declare import declared_model
from batch_observability.guard import guarded, log
from batch_observability.model import BatchModel

# Its files are looked at again after this; a task lives through one look, a scheduler through many.
_HOLDS_S = 1.0
_VARIABLES = ("BATCHOBS_CATALOG", "BATCHOBS_STATE_DIR", "AIRFLOW_HOME")


class _Catalog:
    """The catalog of this process, and when its files were looked at."""

    variables: tuple[str | None, ...] = ()
    looked_at = float("-inf")
    lookup: Lookup | None = None
    told = ""


def model_of(task: Any) -> BatchModel | None:
    """Return the model of a task, also of a mapped one at parse time; None if it is not a batch model."""
    model = model_in_code(task)
    found = _with_catalog(task, model)
    return model if found is None else found


def model_in_code(task: Any) -> BatchModel | None:
    """Return the model that a DAG file declares for a task; None if it declares none."""
    kwargs = getattr(task, "partial_kwargs", None)
    if kwargs is None:
        model, function = getattr(task, "model", None), getattr(task, "python_callable", None)
    else:
        # A mapped operator: what every instance of it will get.
        model = kwargs.get("model", getattr(task.operator_class, "model", None))
        function = kwargs.get("python_callable")
    return model if isinstance(model, BatchModel) else declared_model(function)


@guarded(cast("BatchModel | None", None))
def _with_catalog(task: Any, model: BatchModel | None) -> BatchModel | None:
    """Return the model with what the catalog says; None if it says nothing."""
    lookup = _lookup()
    if lookup is None:
        return None
    if model is not None:
        found: BatchModel | None = merged(model, lookup.named(model.name))
    else:
        dag_id, task_id = getattr(task, "dag_id", None), getattr(task, "task_id", None)
        if not isinstance(dag_id, str) or not isinstance(task_id, str) or _runs_nothing(task):
            return None
        entry = lookup.of_task(dag_id, task_id)
        found = entry.model if entry else None
    if found is not None or compat.is_dag_processor():
        _tell(lookup)
    return found


def _runs_nothing(task: Any) -> bool:
    """Whether Airflow passes over a task without running it, as over an EmptyOperator: it has no runs."""
    return getattr(task, "inherits_from_empty_operator", False) is True


def _lookup() -> Lookup | None:
    now, variables = time.monotonic(), tuple(map(os.environ.get, _VARIABLES))
    if variables == _Catalog.variables and now - _Catalog.looked_at < _HOLDS_S:
        return _Catalog.lookup
    settings = compat.settings("catalog", "state_dir")
    paths = paths_of(settings)
    before = _Catalog.lookup if variables == _Catalog.variables else None
    if before is None or before.paths != paths or not before.is_current():
        _Catalog.lookup = Lookup(paths, settings.state_path) if paths else None
    _Catalog.variables, _Catalog.looked_at = variables, time.monotonic()
    return _Catalog.lookup


def catalog() -> Lookup | None:
    """Return the catalog of this process; None if there is none."""
    return _lookup()


def _tell(lookup: Lookup) -> None:
    """Say once what is wrong with the catalog; what is right in it is used."""
    if lookup.first_mistake and lookup.first_mistake != _Catalog.told:
        _Catalog.told = lookup.first_mistake
        more = f" (and {lookup.mistakes - 1} more)" if lookup.mistakes > 1 else ""
        log.warning("%s%s. Run `batchobs catalog check`.", lookup.first_mistake, more)
