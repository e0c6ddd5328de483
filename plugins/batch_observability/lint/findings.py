"""
What the gate finds, as plain values: rules, the models that they look at, and what is wrong with them where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from batch_observability.catalog import Match, Owner
from batch_observability.model import BatchModel


class Severity(StrEnum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    def reaches(self, least: Severity) -> bool:
        """Whether it is as bad as that, or worse."""
        order = list(Severity)
        return order.index(self) <= order.index(least)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """
    A batch model at one of the places where it is written.

    Attributes:
        model: as far as it is known, with what the catalog adds to code.
        owner: who answers for it, None if nobody is named.
        given: the fields that somebody wrote.
        unknown: the fields that are computed when the DAG file runs, or wrong: nothing is said of them.
        volatile: of the first, what makes them another at each parse, each run or on each host.
        file, line: where it is written.
        places: the same by field.
        match: the tasks that it is the model of, in a catalog.
        tasks: the same as (DAG id, task id) pairs, as far as they are known.
        schedule, timezone, retries, env_file: of its cron job.
        stages, measurements: names that its runs record, None if they are not known.
        in_code: it is declared in a DAG file.
        is_described: a catalog says more of what is declared in a DAG file, and nothing of its own runs.
    """

    model: BatchModel
    owner: Owner | None = None
    given: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    volatile: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    line: int = 0
    places: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    match: tuple[Match, ...] = ()
    tasks: tuple[tuple[str, str], ...] = ()
    schedule: str = ""
    timezone: str = ""
    retries: int | None = None
    env_file: str = ""
    stages: frozenset[str] | None = None
    measurements: frozenset[str] | None = None
    in_code: bool = False
    is_described: bool = False

    def place(self, key: str) -> tuple[str, int]:
        """Return file and line of a field, or of the model where it has none."""
        return self.places.get(key, (self.file, self.line))

    @property
    def tier(self) -> str:
        """The tier as text."""
        return str(self.model.tier)


@dataclass(frozen=True, kw_only=True)
class Complaint:
    """
    What a rule has against a model, or against something else in a file.

    Attributes:
        text: what is wrong, with the value seen.
        subject: the model, None if it is about none.
        key: the field of the model.
        place: file and line, if they are not those of the field.
        severity: None if it is that of the rule.
        remedy: what to do, "" if it is that of the rule.
    """

    text: str
    subject: Subject | None = None
    key: str = "name"
    place: tuple[str, int] | None = None
    severity: Severity | None = None
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A complaint of a rule, with all that is shown of it; `line` is 0 and `file` "" where there is none."""

    rule: str
    severity: Severity
    message: str
    file: str = ""
    line: int = 0
    model: str = ""
    owner: str = ""
    remedy: str = ""
