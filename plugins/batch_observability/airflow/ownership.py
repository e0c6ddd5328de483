"""
The ownership gate where DAGs are parsed: what `batchobs lint` demands of models, as far as it is quick to see.

By default it warns, once for each version of a DAG file: the process that parses lives for one file, so what was said
is kept beside other state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch_observability.airflow import declared
from batch_observability.catalog.merging import merged
from batch_observability.config import Settings
from batch_observability.guard import log
from batch_observability.private import private_folder, write_private

if TYPE_CHECKING:
    from batch_observability.lint.findings import Finding, Subject

OFF, REFUSE = "off", "refuse"
_FOLDER = "lint"
# Lines of log that one DAG is worth.
_MOST = 10


def check(dag: Any, settings: Settings) -> str:
    """
    Look at the models of a DAG; what is wrong is logged, or returned if the DAG is to be refused for it.

    Args:
        dag: as it was parsed.
        settings: of this process: `lint` says what to do.

    Returns:
        Why the DAG is refused, in one line; "" if it is not.
    """
    if settings.lint == OFF:
        return ""
    found = list(findings(dag))
    if not found:
        return ""
    # Imported by now.
    from batch_observability.lint.findings import Severity

    errors = [one for one in found if one.severity is Severity.ERROR]
    if errors and settings.lint == REFUSE:
        words = "; ".join(f"{one.message} ({one.rule}): {one.remedy}" for one in errors)
        return f"DAG {dag.dag_id!r} is refused by batch_observability: {words}. BATCHOBS_LINT=warn lets it pass."
    if _is_news(dag, found, settings.state_path):
        for one in found[:_MOST]:
            log.warning("DAG %r: %s (%s): %s", dag.dag_id, one.message, one.rule, one.remedy)
        if len(found) > _MOST:
            log.warning("DAG %r: %d more. Run `batchobs lint %s`.", dag.dag_id, len(found) - _MOST, dag.fileloc)
    return ""


def findings(dag: Any) -> Iterator[Finding]:
    """Yield what the cheap rules have against the models of a DAG, each model once."""
    subjects = list(_subjects(dag))
    if not subjects:
        return
    from batch_observability.lint.rules import CHEAP

    for subject in subjects:
        for rule in CHEAP:
            if rule.of_one is not None:
                yield from map(rule.finding, rule.of_one(subject))


def _subjects(dag: Any) -> Iterator[Subject]:
    """Yield the models of a DAG, with what the catalog knows of them and of their owners."""
    found, catalog = {}, declared.catalog()
    for task in dag.tasks:
        # One that is in code is put together here: the catalog is asked for once, and not for each task.
        code = declared.model_in_code(task)
        entry = catalog.named(code.name) if code is not None and catalog is not None else None
        model = declared.model_of(task) if code is None else merged(code, entry)
        if model is not None and model not in found:
            found[model] = entry if code is not None or catalog is None else catalog.named(model.name)
    if not found:
        return
    from batch_observability.lint.findings import Subject

    # Handles are in catalogs only: where there is none, nobody can have one.
    unknown = frozenset[str]() if catalog else frozenset({"oncall"})
    for model, entry in found.items():
        team = model.owner.strip()
        owner = entry.owner if entry and entry.owner and entry.owner.team == team else None
        if owner is None and catalog is not None and team:
            owner = catalog.owner(team)
        given = model.given | entry.given if entry else model.given
        yield Subject(model=model, owner=owner, given=given, unknown=unknown, file=dag.fileloc, in_code=True)


def _is_news(dag: Any, found: list[Finding], state: Path) -> bool:
    """Whether that was not said of this version of the file yet; if it cannot be kept, it is said again."""
    try:
        stat = Path(dag.fileloc).stat()
        version = [stat.st_mtime_ns, stat.st_size]
    except OSError:
        version = []
    said = json.dumps([version, sorted(one.message for one in found)])
    path = state / _FOLDER / f"{hashlib.sha256(f'{dag.fileloc}|{dag.dag_id}'.encode()).hexdigest()[:24]}.json"
    try:
        if path.read_text(encoding="utf-8") == said:
            return False
    except OSError:
        # The first time.
        pass
    try:
        private_folder(path.parent)
        write_private(path, said)
    except OSError:
        return True
    return True
