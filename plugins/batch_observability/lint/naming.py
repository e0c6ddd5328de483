"""
One thing, one name: a model with two services, or a service with two spellings, is two things to Datadog.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from batch_observability.lint.findings import Complaint, Subject


def two_services(subjects: Sequence[Subject]) -> Iterator[Complaint]:
    """Yield the places where a model has another service than where it is written first."""
    first: dict[str, Subject] = {}
    for subject in subjects:
        if not {"name", "service"}.isdisjoint(subject.unknown):
            continue
        before = first.setdefault(subject.model.name, subject)
        if before.model.service != subject.model.service:
            file, line = before.place("service")
            yield Complaint(
                text=f"model {subject.model.name!r} is in service {subject.model.service!r} here, and in service "
                f"{before.model.service!r} in {file}:{line}",
                subject=subject,
                key="service",
            )


def similar_names(subjects: Sequence[Subject]) -> Iterator[Complaint]:
    """Yield models whose names differ from another's by case, dash, underscore, dot or slash only."""
    named = [subject for subject in subjects if "name" not in subject.unknown]
    return _similar("model", "name", named, lambda subject: subject.model.name)


def similar_services(subjects: Sequence[Subject]) -> Iterator[Complaint]:
    """Yield the same of services that were written."""
    # A service that nobody wrote is the model's name, of which the same was said already.
    written = [subject for subject in subjects if "service" in subject.given - subject.unknown]
    return _similar("service", "service", written, lambda subject: subject.model.service)


def similar_owners(subjects: Sequence[Subject]) -> Iterator[Complaint]:
    """Yield the same of owners."""
    owned = [subject for subject in subjects if subject.model.owner.strip() and "owner" not in subject.unknown]
    return _similar("owner", "owner", owned, lambda subject: subject.model.owner.strip())


def _similar(
    what: str, key: str, subjects: Sequence[Subject], name_of: Callable[[Subject], str]
) -> Iterator[Complaint]:
    spellings: dict[str, dict[str, Subject]] = defaultdict(dict)
    for subject in subjects:
        spellings[_bare(name_of(subject))].setdefault(name_of(subject), subject)
    for known in spellings.values():
        (name, first), *others = known.items()
        for other, subject in others:
            file, line = first.place(key)
            text = f"{what} {other!r} and {what} {name!r} in {file}:{line} differ in case and punctuation only"
            yield Complaint(text=text, subject=subject, key=key, remedy=f"write {name!r}, or give it another name")


def _bare(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter not in "-_./ ") or name
