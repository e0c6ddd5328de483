"""
Tasks that are two models: which of them counts is to be decided by who writes the catalog, not by the order of lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from batch_observability.catalog import Match
from batch_observability.catalog.matching import Patterns
from batch_observability.lint.findings import Complaint, Severity, Subject
from batch_observability.lint.globs import matches, one_covers, task_of_both

_WILD = re.compile(r"[*?\[]")


def two_models(subjects: Sequence[Subject]) -> Iterator[Complaint]:
    """
    Yield models that match a task of a model before them.

    Where one pattern means all that the other does and is less close, the other one is an exception from it, and well.
    """
    matching = [subject for subject in subjects if subject.match]
    for place, subject in enumerate(matching):
        for before in matching[:place]:
            if before.model.name != subject.model.name and (complaint := _overlap(before, subject)):
                yield complaint


def in_code_and_catalog(subjects: Sequence[Subject]) -> Iterator[Complaint]:
    """Yield models in code whose task another model of the catalog matches: code counts, which may be a surprise."""
    matching = [subject for subject in subjects if subject.match]
    for subject in subjects:
        for task in subject.tasks if subject.in_code and "name" not in subject.unknown else ():
            for other in matching:
                if other.model.name != subject.model.name and any(matches(match, *task) for match in other.match):
                    file, line = other.place("match")
                    text = (
                        f"task {'.'.join(task)} is model {subject.model.name!r} here, and {other.model.name!r} by its "
                        f"match in {file}:{line}: the code counts"
                    )
                    yield Complaint(text=text, subject=subject, severity=Severity.NOTE)


def _overlap(before: Subject, subject: Subject) -> Complaint | None:
    """Return the worst that is to be said of two models."""
    found: Complaint | None = None
    for one in before.match:
        for other in subject.match:
            task = _shared(one, other)
            if task is None:
                continue
            first = _closest(one, other, task)
            if first is not None and one_covers(one, other):
                continue
            file, line = before.place("match")
            names = f"models {before.model.name!r} ({file}:{line}) and {subject.model.name!r}"
            names = f"{names} both match task {'.'.join(task)}"
            if first is None:
                return Complaint(
                    text=f"{names}, equally closely: the order of lines decides",
                    subject=subject,
                    key="match",
                    severity=Severity.ERROR,
                )
            winner = before if first is one else subject
            text = f"{names}: it is {winner.model.name!r}, whose pattern says more of it"
            found = found or Complaint(text=text, subject=subject, key="match")
    return found


def _shared(one: Match, other: Match) -> tuple[str, str] | None:
    if not _may_meet(one.dag_id, other.dag_id) or not _may_meet(one.task_id, other.task_id):
        return None
    return task_of_both(one, other)


def _may_meet(one: str, other: str) -> bool:
    """Whether what two patterns begin and end with lets them match one name: most pairs of a catalog do not."""
    (head, tail), (other_head, other_tail) = _ends(one), _ends(other)
    shorter = min(len(head), len(other_head))
    if head[:shorter] != other_head[:shorter]:
        return False
    shorter = min(len(tail), len(other_tail))
    return not shorter or tail[-shorter:] == other_tail[-shorter:]


def _ends(pattern: str) -> tuple[str, str]:
    if not _WILD.search(pattern):
        return pattern, pattern
    # A bracket that is a letter of a set says nothing of the end.
    return _WILD.split(pattern, maxsplit=1)[0], re.split(r"[*?\]]", pattern)[-1]


def _closest(one: Match, other: Match, task: tuple[str, str]) -> Match | None:
    """Return the pattern that counts for a task, None if only their order decides."""
    found = []
    for pair in ((one, other), (other, one)):
        patterns = Patterns([(str(pair.index(match)), match.dag_id, match.task_id) for match in pair])
        found.append(pair[int(patterns.names(*task)[0])])
    return found[0] if found[0] is found[1] else None
