"""
A first catalog, of tasks and cron jobs that are there already: it can be read as it is, and says what to fill in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from batch_observability.cli.dag_files import FoundTask
from batch_observability.cli.words import one_line
from batch_observability.cron import wrapping
from batch_observability.cron.crontab import Job, Line, shown
from batch_observability.model import BatchModel
from batch_observability.objective import ModelError
from batch_observability.redact import redact_text

# Airflow's default, which names nobody.
_NOBODY = "airflow"
# Of YAML, which reads them as something else than text.
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_HEAD = """\
# The batch models of this host. Take out what is no batch model, and fill in the rest: remove the # before a line, and
# write what holds after it. Where this file is to be, and all that can stand in it: docs/catalog.md.
# Editors complete it with the output of `batchobs catalog schema` in a file of this name:
# yaml-language-server: $schema=batch_models.schema.json

# Teams, with where to reach them and whom Datadog calls.
# owners:
#   team-name: {contact: "#channel", oncall: "@pagerduty-team-name"}

"""
_OWNER, _TIER, _RUNBOOK, _SLA = (
    "owner: team-name",
    "tier: 3  # 1 matters most",
    "runbook: https://...",
    "sla: {finish_within: 1h, success_rate: 99%}",
)


def first_catalog(tasks: Iterable[FoundTask], crontab: Iterable[Line]) -> str:
    """Return a catalog of the tasks of DAG files and of the jobs of a crontab."""
    taken: set[str] = set()
    parts = [*_of_tasks(list(tasks), taken), *_of_jobs(crontab, taken)]
    models = any(line.lstrip().startswith("- ") for part in parts for line in part)
    lines = [line for part in parts for line in part]
    return f"{_HEAD}models:{'' if models else ' []'}\n" + "".join(f"{line}\n" for line in lines)


def _of_tasks(tasks: Sequence[FoundTask], taken: set[str]) -> Iterator[list[str]]:
    for file, of_file in groupby(tasks, key=lambda one: one.file):
        found = list(of_file)
        yield ["", f"  # --- {one_line(file)}"]
        for dag_id in dict.fromkeys(one.dag_id for one in found if one.task_id):
            of_dag = list({one.task_id: one for one in found if one.dag_id == dag_id and one.task_id}.values())
            for one in of_dag:
                name = _free(dag_id if len(of_dag) == 1 else f"{dag_id}.{one.task_id}", taken)
                match = f"match: {{dag_id: {_quoted(dag_id)}, task_id: {_quoted(one.task_id)}}}"
                yield _model(name, [match], "" if one.owner == _NOBODY else one.owner)
        if computed := [str(one.line) for one in found if not one.task_id]:
            where = f"line{'s' if len(computed) > 1 else ''} {', '.join(computed)}"
            yield [f"  # In {where} ids are computed: write match: {{dag_id: ..., task_id: ...}} yourself."]


def _of_jobs(crontab: Iterable[Line], taken: set[str]) -> Iterator[list[str]]:
    jobs = [(line.number, line.job) for line in crontab if line.job is not None]
    if jobs:
        yield ["", "  # --- Cron jobs; `batchobs crontab wrap` has them observed."]
    for number, job in jobs:
        name = _free(wrapping.model_of(job.command) or wrapping.name_for(job), taken)
        written = [f"schedule: {_quoted(job.schedule.text)}"]
        if job.timezone:
            written.append(f"timezone: {_quoted(shown(job.timezone))}")
        yield [f"  # Line {number}: {_command(job)}", *_model(name, written, "")]


def _command(job: Job) -> str:
    """Return what a job runs, shortly; what may be secret in it is not repeated."""
    script = redact_text(one_line(shown(job.script)))
    return re.sub(r"\b([A-Za-z_]\w*)=\S+", r"\1=...", script)[:80]


def _model(name: str, written: Iterable[str], owner: str) -> list[str]:
    missing = [_TIER, _RUNBOOK, _SLA]
    said = [f"owner: {_quoted(owner)}"] if _is_owner(owner) else []
    missing = missing if said else [_OWNER, *missing]
    return [
        f"  - name: {_quoted(name)}",
        *(f"    {line}" for line in (*said, *written)),
        *(f"    # {line}" for line in missing),
    ]


def _is_owner(text: str) -> bool:
    try:
        return bool(BatchModel(name="model", owner=text).owner.strip())
    except ModelError:
        return False


def _free(wanted: str, taken: set[str]) -> str:
    """Return a name for a model that no other has, made of ids."""
    name = re.sub(r"[^A-Za-z0-9_.\-/]+", "-", wanted).lstrip("_.-/")[:96] or "model"
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    free = name if name not in taken else next(one for one in numbered if one not in taken)
    taken.add(free)
    return free


def _quoted(text: str) -> str:
    """Return text as a YAML scalar; what could be read as something else is quoted as in JSON."""
    is_plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.\-/]*", text) and text.lower() not in _WORDS
    return text if is_plain else json.dumps(text, ensure_ascii=False)
