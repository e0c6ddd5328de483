"""
The format of a catalog in one table: each key with what it means, how it is read, and what editors are told of it.

The reader, the JSON Schema and the documentation take it from here, so that none of them knows a key that the others
do not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batch_observability.catalog.values import MAX_RETRIES, OVERLAPS, flag, retries
from batch_observability.objective import PARSERS, ModelError, parse_duration

Schema = Mapping[str, Any]

_TEXT: Schema = {"type": ["string", "number"], "minLength": 1}
_LINE: Schema = {"type": ["string", "number"], "pattern": r"\S"}
_NAME: Schema = {"type": ["string", "number"], "pattern": r"^[A-Za-z0-9][A-Za-z0-9_.\-/]*$", "maxLength": 100}
_TEAM: Schema = {"type": ["string", "number"], "pattern": r"^[^\n\r,|]+$", "maxLength": 100}
_DURATION: Schema = {
    "type": "string",
    "pattern": r"^\s*(?=\d)(\d+d)?\s*(\d+h)?\s*(\d+m)?\s*(\d+(\.\d+)?s)?\s*$",
    "examples": ["90s", "15m", "1h30m", "2d"],
}
_RATIO: Schema = {"type": ["number", "string"], "minimum": 0, "maximum": 1, "examples": [0.99, "99%"]}
_COUNT: Schema = {"type": ["integer", "string"], "minimum": 0, "pattern": r"^\s*\+?[0-9_]+\s*$"}
_FLAG: Schema = {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "^(?i:true|false)$"}]}
_URL: Schema = {"type": "string", "pattern": r"^[A-Za-z][A-Za-z0-9+.\-]*://[^\s/]+\S*$"}
_PATTERN: Schema = {"type": ["string", "integer"], "pattern": r"^[\w.\-*?\[\]!]+$", "maxLength": 250}


@dataclass(frozen=True, kw_only=True)
class Key:
    """
    A key of a mapping in a catalog.

    Attributes:
        help: what it means, in one line.
        schema: what JSON Schema can tell of its value; of one that is a mapping or a list, how `keys` are written.
        check: raises `ModelError`, which says what is wrong with the text of a value and what to write.
        of_model: it is a field of a `BatchModel`, which checks it.
        keys: those of the mapping that it is.
    """

    help: str
    schema: Schema
    check: Callable[[str], object] | None = None
    of_model: bool = False
    keys: Mapping[str, Key] | None = None


def _overlap(text: str) -> str:
    if text not in OVERLAPS:
        raise ModelError(f"none of {', '.join(OVERLAPS)}; write one of these")
    return text


def _schedule(text: str) -> None:
    if not re.fullmatch(r"@\w+|\S+(\s+\S+){4}", text):
        raise ModelError("not five columns; write it as in a crontab, for example '10 3 * * *' or '@daily'")


def _url(text: str) -> None:
    if not re.fullmatch(str(_URL["pattern"]), text):
        raise ModelError("not a URL; write for example https://wiki.example.com/churn")


def _handles(text: str) -> None:
    if not re.fullmatch(r"@\S+( @\S+)*", text):
        raise ModelError("not Datadog's handle; write for example @pagerduty-risk, @slack-risk or @oncall-risk")


def _team(text: str) -> None:
    if not re.fullmatch(str(_TEAM["pattern"]), text) or len(text) > _TEAM["maxLength"]:
        raise ModelError("not a team's name; write up to 100 characters with no comma and no |, for example team-risk")


def _pattern(text: str) -> None:
    if not re.fullmatch(str(_PATTERN["pattern"]), text) or len(text) > _PATTERN["maxLength"]:
        raise ModelError("not an id with *, ? or [...]; write for example churn_* or churn_daily")


_SLA_SCHEMAS: Mapping[str, tuple[str, Schema]] = {
    "start_within": ("due time to start", _DURATION),
    "finish_within": ("start of the first try to the end of the last", _DURATION),
    "finish_by": (
        "wall clock with zone and day offset, from the date that the run is due on",
        {
            "type": "string",
            "pattern": r"^\s*(\+\d{1,2}d\s+)?\d{1,2}:\d{2}(:\d{2})?(\s+\S+)?\s*$",
            "examples": ["06:30 Europe/London", "+1d 02:00 UTC"],
        },
    ),
    "min_duration": ("a run that is faster has probably done nothing", _DURATION),
    "freshness": ("greatest age of the newest success", _DURATION),
    "min_rows": ("fewest rows written", _COUNT),
    "max_rejected_ratio": ("rejected rows over rows read, 0 to 1", _RATIO),
    "success_rate": ("successful runs over all runs in window, 0 to 1 or a percentage", _RATIO),
    "window": ("what success_rate is taken over (30d)", _DURATION),
    "warn_at": ("fraction of an objective that may be used up before the run is at risk (0.8)", _RATIO),
    "judge_backfills": ("objectives that count from the due time hold for backfills too (false)", _FLAG),
}

SLA_KEYS: Mapping[str, Key] = {
    name: Key(help=text, schema=schema, check=PARSERS[name]) for name, (text, schema) in _SLA_SCHEMAS.items()
}
CONTACT_KEYS: Mapping[str, Key] = {
    "contact": Key(help="where to reach the team: a channel, an address", schema=_LINE),
    "oncall": Key(
        help="Datadog's handle of who is called, in the messages of monitors",
        schema={"type": "string", "pattern": r"^@\S+( @\S+)*$", "examples": ["@pagerduty-risk", "@slack-risk"]},
        check=_handles,
    ),
}
OWNER_KEYS: Mapping[str, Key] = {
    "team": Key(help="the team's name, the tag owner", schema=_TEAM, check=_team),
    **CONTACT_KEYS,
}
MATCH_KEYS: Mapping[str, Key] = {
    "dag_id": Key(help="id of a DAG, with *, ? and [...]", schema=_PATTERN, check=_pattern),
    "task_id": Key(help="id of a task, its task groups included, with *, ? and [...]", schema=_PATTERN, check=_pattern),
}
LINK = Key(help="a URL", schema=_URL, check=_url)

MODEL_KEYS: Mapping[str, Key] = {
    "name": Key(help="what it is called, the same in every environment", schema=_NAME, of_model=True),
    "version": Key(
        help="of the model, not of a run: no date, no run id",
        schema={"type": ["string", "number"], "pattern": r"^[^\s,|#]+$", "maxLength": 100},
        of_model=True,
    ),
    "service": Key(help="Datadog service, or service.name (the name)", schema=_NAME, of_model=True),
    "owner": Key(help="the team that answers for it, or a mapping of team, contact and oncall", schema=_TEAM),
    "tier": Key(
        help="how much it matters: a number from 1, or a short label (3)",
        schema={
            "type": ["integer", "string"],
            "minimum": 1,
            "pattern": r"^(?!0+$)[A-Za-z0-9][\w.\-]{0,49}$",
        },
        of_model=True,
    ),
    "description": Key(help="one line", schema=_TEXT, of_model=True),
    "runbook": Key(help="URL of what to do when it fails", schema=_TEXT, of_model=True),
    "links": Key(help="URLs by name, besides the runbook", schema={"type": "object"}),
    "sla": Key(help="what it promises", schema={"type": "object"}, keys=SLA_KEYS),
    "match": Key(
        help="which tasks of Airflow it is: ids or patterns of DAG and task, one mapping or a list",
        schema={"type": "object", "minProperties": 1},
        keys=MATCH_KEYS,
    ),
    "schedule": Key(
        help="when its cron job is due, as in a crontab",
        schema={
            "type": "string",
            "pattern": r"^\s*(@\w+|\S+(\s+\S+){4})\s*$",
            "examples": ["10 3 * * *", "@daily"],
        },
        check=_schedule,
    ),
    "timezone": Key(help="IANA name of the schedule's zone (the host's)", schema={"type": "string", "pattern": r"\S"}),
    "timeout": Key(
        help="how long the job may take before it is ended, with what it started",
        schema=_DURATION,
        check=parse_duration,
    ),
    "grace": Key(
        help="how long it has to end when it is told to (30s)",
        schema=_DURATION,
        check=parse_duration,
    ),
    "overlap": Key(
        help="if the run before still goes on (allow)",
        schema={"enum": list(OVERLAPS)},
        check=_overlap,
    ),
    "retries": Key(
        help="attempts after one that failed (0)",
        schema={"type": ["integer", "string"], "minimum": 0, "maximum": MAX_RETRIES, "pattern": "^[0-9]{1,3}$"},
        check=retries,
    ),
    "env_file": Key(help="a file of KEY=VALUE lines for the job's environment", schema=_TEXT),
    "instrument": Key(
        help="trace what the job calls, by OpenTelemetry's instrumentations (false)",
        schema=_FLAG,
        check=flag,
    ),
}
# What holds for all models of a file may be said once; what tells them apart may not.
DEFAULT_KEYS: Mapping[str, Key] = {name: key for name, key in MODEL_KEYS.items() if name not in ("name", "match")}
FILE_KEYS: Mapping[str, str] = {
    "models": "batch models",
    "owners": "teams, with where to reach them",
    "defaults": "what holds for all models of this file that do not say it themselves",
}
