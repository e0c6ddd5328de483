"""
What would have to happen so that Datadog has what is rendered: of each resource, whether it is made, changed, left as
it is, or in the way.

Of several with the same key the oldest is ours. The others are copies that somebody made by Datadog's "clone", which
copies the mark too: they are told and never touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batch_observability.datadog.compare import MISSING, Difference, differences
from batch_observability.datadog.connection import Api
from batch_observability.datadog.kinds import AT, Found, title_of
from batch_observability.datadog.queries import tag_value
from batch_observability.datadog.resource import KINDS, RETENTION_FILTER, SERVICE, Resource, filled

CREATE, CHANGE, KEEP, FOREIGN, REMOVE = "create", "change", "keep", "foreign", "remove"


@dataclass
class Existing:
    """
    What is in Datadog.

    Attributes:
        ours: by `kind:key`.
        copies: what has a key that an older one has.
        foreign: services that are not ours, by `kind:key` of what we would call so: only one can have the name.
        filters: retention filters that are not ours.
    """

    ours: dict[str, Found] = field(default_factory=dict)
    copies: list[Found] = field(default_factory=list)
    foreign: dict[str, Found] = field(default_factory=dict)
    filters: list[Found] = field(default_factory=list)

    def ids(self) -> dict[str, str | int]:
        """Return Datadog's ids by `kind:key`."""
        return {name: one.id for name, one in self.ours.items()}


def existing(api: Api, kinds: Iterable[str] = KINDS) -> Existing:
    """Ask Datadog for all that is ours, or in the way."""
    state = Existing()
    for kind in kinds:
        for one in oldest_first(AT[kind].listed(api)):
            if not one.key and kind == RETENTION_FILTER:
                state.filters.append(one)
            elif not one.key:
                metadata = one.body.get("metadata") or {}
                if metadata.get("namespace", "default") == "default":
                    state.foreign[f"{kind}:{SERVICE}/{tag_value(metadata.get('name'))}"] = one
            elif state.ours.setdefault(f"{kind}:{one.key}", one) is not one:
                state.copies.append(one)
    return state


def oldest_first(several: Iterable[Found]) -> list[Found]:
    """Return what was found in the order in which it was made; a number is smaller the earlier it was given."""
    return sorted(several, key=lambda one: (one.since, one.id if isinstance(one.id, int) else 0, str(one.id)))


@dataclass(frozen=True)
class Change:
    """
    What would happen to one resource.

    Attributes:
        action: `create`, `change`, `keep`, `remove`, or `foreign` for what somebody else has under that name.
        kind, key, title: which it is.
        id: Datadog's, None for what is to be made.
        fields: what differs.
    """

    action: str
    kind: str
    key: str
    title: str
    id: str | int | None = None
    fields: tuple[Difference, ...] = ()

    @property
    def name(self) -> str:
        """Return `kind:key`."""
        return f"{self.kind}:{self.key}"


@dataclass(frozen=True)
class Plan:
    """All changes: those of the catalog in its order, then what the catalog does not have any more."""

    changes: tuple[Change, ...]
    copies: tuple[Found, ...] = ()
    warnings: tuple[str, ...] = ()

    def of(self, *actions: str) -> list[Change]:
        """Return the changes with one of these actions."""
        return [one for one in self.changes if one.action in actions]

    @property
    def is_empty(self) -> bool:
        """Whether Datadog has all that is rendered; what would be removed by `--prune` only is not asked for."""
        return not self.of(CREATE, CHANGE)


def planned(resources: Sequence[Resource], state: Existing) -> Plan:
    """Return what has to happen so that Datadog has these resources."""
    known = _Known(state.ids())
    changes = [*(_change(one, state, known) for one in resources), *_removals(resources, state)]
    return Plan(tuple(changes), tuple(state.copies), tuple(_warnings(state)))


def removals(state: Existing) -> Plan:
    """Return what has to happen so that Datadog has nothing of ours."""
    return planned((), state)


def _change(one: Resource, state: Existing, known: _Known) -> Change:
    name = f"{one.kind}:{one.key}"
    title = title_of(one.kind, one.body)
    found = state.ours.get(name)
    if found is None:
        other = state.foreign.get(name)
        return Change(FOREIGN if other else CREATE, one.kind, one.key, title, other.id if other else None)
    body = filled(one.body, known)
    fields = tuple(differences(body, found.body))
    return Change(CHANGE if fields else KEEP, one.kind, one.key, title, found.id, fields)


class _Known(dict[str, str | int]):
    """Ids by `kind:key`; of what is not made yet, words in place of the id."""

    def __init__(self, ids: Mapping[str, str | int]) -> None:
        super().__init__(ids)

    def __missing__(self, name: str) -> str:
        return f"(id of {name.partition(':')[2]})"


def _removals(resources: Sequence[Resource], state: Existing) -> Iterator[Change]:
    """Yield what is in Datadog and not among the resources, those first that refer to others."""
    wanted = {f"{one.kind}:{one.key}" for one in resources}
    gone = [one for name, one in state.ours.items() if name not in wanted]
    gone.sort(key=lambda one: (-KINDS.index(one.kind), one.body.get("type") != "composite", one.key))
    for one in gone:
        yield Change(REMOVE, one.kind, one.key, one.title, one.id)


def _warnings(state: Existing) -> Iterator[str]:
    """
    Yield what is not ours to change and should be known.

    The first retention filter that a span matches keeps or drops it, those below never see it
    (https://docs.datadoghq.com/tracing/trace_pipeline/trace_retention/#retention-filters).
    """
    for ours in (one for one in state.ours.values() if one.kind == RETENTION_FILTER):
        place = ours.body.get("execution_order", 0)
        above = [
            one.title
            for one in state.filters
            if one.body.get("enabled") and one.body.get("rate", 1) < 1 and one.body.get("execution_order", 0) < place
        ]
        if above:
            names = ", ".join(repr(name) for name in above)
            yield (
                f"retention filter {ours.title!r} comes after {names}, which keep less than all that they match: "
                "move it above them in Datadog, or runs that they match are not all kept"
            )


def as_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON: each change with its fields, and how many there are of each action."""
    return {
        "changes": [_as_json(one) for one in plan.changes if one.action != KEEP],
        "copies": [{"kind": one.kind, "key": one.key, "title": one.title, "id": one.id} for one in plan.copies],
        "warnings": list(plan.warnings),
        "counts": {action: len(plan.of(action)) for action in (CREATE, CHANGE, REMOVE, FOREIGN, KEEP)},
    }


def _as_json(one: Change) -> dict[str, Any]:
    fields = [
        {
            "path": field.path,
            **({} if field.before is MISSING else {"before": field.before}),
            "after": field.after,
        }
        for field in one.fields
    ]
    return {
        "action": one.action,
        "kind": one.kind,
        "key": one.key,
        "title": one.title,
        "id": one.id,
        **({"fields": fields} if one.action == CHANGE else {}),
    }
