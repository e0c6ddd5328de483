"""
What a catalog says: models, who answers for them, which tasks they are, and how their cron jobs run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from batch_observability.catalog.matching import Patterns
from batch_observability.config import ConfigError
from batch_observability.model import BatchModel
from batch_observability.objective import ModelError

OVERLAPS = ("allow", "skip", "wait")
MAX_RETRIES = 100


class CatalogError(ConfigError):
    """A catalog is written wrongly. The message is one line for the user."""


@dataclass(frozen=True)
class Mistake:
    """
    Something that is written wrongly.

    Attributes:
        file, line: where; line 0 if the file cannot be read.
        key: whose value is wrong, `sla.finish_by` for one within another; "" if it is more than a value.
        text: what is wrong, the value and the remedy, in one line.
    """

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else self.text


@dataclass(frozen=True, kw_only=True)
class Owner:
    """
    Who answers for a model.

    Attributes:
        team: its name, the tag `owner`.
        contact: where to reach it, in its own words.
        oncall: Datadog's handle of who is called, `@pagerduty-risk`, `@slack-risk` or `@oncall-risk`.
    """

    team: str
    contact: str = ""
    oncall: str = ""


@dataclass(frozen=True)
class Match:
    """Which tasks of Airflow are a model: patterns of DAG id and task id with `*`, `?` and `[...]`."""

    dag_id: str = "*"
    task_id: str = "*"


@dataclass(frozen=True, kw_only=True)
class Cataloged:
    """
    A model as the catalog has it, and how its cron job runs; "" and None where nothing is said.

    Attributes:
        owner: who answers for it; None if nobody is named.
        match: which tasks are it.
        links: URLs by name, besides the runbook.
        schedule: as in a crontab.
        timezone: IANA name.
        timeout, grace: how long the job may take, and how long it has to end when it is told to.
        overlap: `allow`, `skip` or `wait`.
        env_file: a file of variables.
        instrument: trace what the job calls.
        file, lines: where it stands, and the line of each key that is written, `sla.finish_by` for one of the SLA;
            also of those that are wrong.
        given: the keys of the model that count; an SLA's are `sla.finish_by`.
    """

    model: BatchModel
    owner: Owner | None = None
    match: tuple[Match, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    schedule: str = ""
    timezone: str = ""
    timeout: timedelta | None = None
    grace: timedelta | None = None
    overlap: str = ""
    retries: int | None = None
    env_file: str = ""
    instrument: bool | None = None
    file: str = ""
    lines: dict[str, int] = field(default_factory=dict)
    given: frozenset[str] = frozenset()

    def mistake(self, key: str, what: str) -> CatalogError:
        """Return that the value of a key is wrong, for those who know more of it than its form."""
        return CatalogError(f"{self.file}:{self.lines.get(key, self.lines['name'])}: {what}")


@dataclass(frozen=True)
class Catalog:
    """What is known of models and owners by name; empty where there is no file."""

    models: Mapping[str, Cataloged] = field(default_factory=dict)
    owners: Mapping[str, Owner] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def scheduled(self) -> list[Cataloged]:
        """Return the models whose cron jobs have a schedule."""
        return [one for one in self.models.values() if one.schedule]

    def matching(self, dag_id: str, task_id: str) -> list[Cataloged]:
        """Return the models that a task is, the closest match first."""
        return [self.models[name] for name in self.patterns.names(dag_id, task_id)]

    @cached_property
    def patterns(self) -> Patterns:
        """Names of models by the tasks that they are."""
        return Patterns([(name, m.dag_id, m.task_id) for name, one in self.models.items() for m in one.match])


def retries(text: str) -> int:
    """Read how often a job is tried again."""
    if not text.isascii() or not text.isdecimal() or int(text) > MAX_RETRIES:
        raise ModelError(f"not a number from 0 to {MAX_RETRIES}; write for example 2")
    return int(text)


def flag(text: str) -> bool:
    """Read `true` or `false`."""
    words = {"true": True, "false": False}
    if text.lower() not in words:
        raise ModelError("neither true nor false; write one of these")
    return words[text.lower()]
