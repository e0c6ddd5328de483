"""
Values that make new metric series with each run, each day or each host, where a tag is to have few.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from batch_observability import schema
from batch_observability.lint.dag_files import STAGE, DagFile
from batch_observability.lint.findings import Complaint, Severity, Subject

_DAY = r"(?:19|20)\d\d(?P<dash>[-_.]?)(?:0[1-9]|1[0-2])(?P=dash)(?:0[1-9]|[12]\d|3[01])"
_ERROR, _WARNING = Severity.ERROR, Severity.WARNING
# What a value looks like, by how bad it is: each run has another, or each day, each commit, each host.
_LOOKS: tuple[tuple[str, Severity, re.Pattern[str]], ...] = (
    ("a template", _ERROR, re.compile(r"\{\{|\$\{?\w|%\(|\{\w+\}")),
    ("a UUID", _ERROR, re.compile(r"[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", re.IGNORECASE)),
    ("a run id", _ERROR, re.compile(r"(?:manual|scheduled|backfill|dataset_triggered|asset_triggered)__")),
    ("a time", _ERROR, re.compile(rf"{_DAY}[T_-]?\d\d[:_-]?\d\d|(?<!\d)1[5-9]\d{{8}}(?:\d{{3}})?(?!\d)")),
    ("a date", _WARNING, re.compile(rf"(?<!\d){_DAY}(?!\d)")),
    (
        "an address",
        _WARNING,
        re.compile(r"(?<![\d.])(?:ip-)?(?:\d{1,3}-){3}\d{1,3}(?!\d)|(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])"),
    ),
)
_COMMIT = re.compile(r"(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)(?:[0-9a-f]{7,12}|[0-9a-f]{40})")
_FIELDS = ("name", "version", "service", "owner")


def unbounded_tag(subject: Subject) -> Iterator[Complaint]:
    """No field that is a tag has a value of one run, day, commit or host."""
    for field in (*_FIELDS, "tier"):
        whose = f"{field} of model {subject.model.name!r}"
        if varies := subject.volatile.get(field):
            text = f"{whose} is computed from {varies}: it would be another each time"
            yield Complaint(text=text, subject=subject, key=field, severity=_ERROR)
    for field in _FIELDS:
        if field not in subject.given or field in subject.unknown:
            continue
        value = str(getattr(subject.model, field))
        found = _looks_like(value, is_version=field == "version")
        if found is not None:
            what, severity = found
            text = f"{field} of model {subject.model.name!r} is {value!r}, which looks like {what}"
            yield Complaint(text=text, subject=subject, key=field, severity=severity)


def _looks_like(value: str, *, is_version: bool) -> tuple[str, Severity] | None:
    for what, severity, pattern in _LOOKS:
        # 1.2.3.4 is a version, too.
        if pattern.search(value) and not (is_version and what == "an address"):
            return what, severity
    if is_version and _COMMIT.fullmatch(value):
        return "a commit", _WARNING
    return None


def computed_name(subject: Subject) -> Iterator[Complaint]:
    """A name that is computed cannot be looked for in a catalog, and not be checked."""
    if "name" in subject.unknown and "name" in subject.given and not subject.volatile.get("name"):
        text = f"the name of model {subject.model.name!r} is computed: what is demanded of names is not checked"
        yield Complaint(text=text, subject=subject, key="name")


def unbounded_recorded(file: DagFile) -> Iterator[tuple[str, Complaint]]:
    """Yield stages and measurements of a DAG file whose names are computed, with the rule."""
    for one in file.recorded:
        place = (file.path, one.line)
        rule = "unbounded-stage" if one.kind == STAGE else "unbounded-measurement"
        if one.name is None:
            text = f"{one.kind}({one.text}) has a name that is computed: each is a series of its own"
            yield rule, Complaint(text=text, place=place)
        elif found := _looks_like(one.name, is_version=False):
            text = f"{one.kind}({one.text}) has the name {one.name!r}, which looks like {found[0]}"
            yield rule, Complaint(text=text, place=place)


def tag_outside_list(file: DagFile) -> Iterator[Complaint]:
    """Yield what code sends under our names with tags of its own."""
    for one in file.sent:
        text = f"metric {one.metric!r} is sent with the tag {one.tag!r}, which is none of {', '.join(schema.TAGS)}"
        yield Complaint(text=text, place=(file.path, one.line))
