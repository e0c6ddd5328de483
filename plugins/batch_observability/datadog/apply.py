"""
Makes Datadog have what is rendered, one request after the other, each of which may be the last: whoever comes next
finds by its key what was made and goes on from there.

A create whose answer was lost is looked up by its key before it is tried again. What is refused stops only what needs
it; what nobody answers stops all, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from batch_observability.datadog.compare import differences
from batch_observability.datadog.connection import BACKOFF_S, Api, ApiError, LostError, RefusedError, StopError
from batch_observability.datadog.kinds import AT, Found
from batch_observability.datadog.plan import (
    CHANGE,
    CREATE,
    FOREIGN,
    KEEP,
    REMOVE,
    Change,
    Existing,
    oldest_first,
    planned,
)
from batch_observability.datadog.resource import Resource, filled

CREATED, CHANGED, KEPT, REMOVED = "created", "changed", "unchanged", "removed"
LEFT, FAILED, SKIPPED = "left alone", "failed", "skipped"
# Looks for a create whose answer was lost, and then how many creates.
_LOOKS, _CREATES = 3, 3
# Resources in a row that nobody answered: then nobody is there.
_LOST_IN_A_ROW = 3


@dataclass(frozen=True)
class Step:
    """
    What became of one resource.

    Attributes:
        outcome: `created`, `changed`, `unchanged`, `removed`, `left alone`, `failed`, `skipped`.
        kind, key: which it is.
        id: Datadog's, if it is known.
        reason: why it failed, was skipped or left alone.
        kept: fields that Datadog has otherwise right after it took the body.
    """

    outcome: str
    kind: str
    key: str
    id: str | int | None = None
    reason: str = ""
    kept: tuple[str, ...] = ()


@dataclass
class Report:
    """What became of all; `is_interrupted` if somebody ended it before it was done."""

    steps: list[Step] = field(default_factory=list)
    is_interrupted: bool = False

    def count(self, outcome: str) -> int:
        """Return how many ended so."""
        return sum(one.outcome == outcome for one in self.steps)

    @property
    def is_done(self) -> bool:
        """Whether all that was asked for is so now."""
        return not self.is_interrupted and not self.count(FAILED) and not self.count(SKIPPED)


Tell = Callable[[Step], None]


def apply(api: Api, resources: Sequence[Resource], state: Existing, *, prune: bool, tell: Tell) -> Report:
    """
    Make Datadog have these resources.

    Args:
        api: Datadog's.
        resources: in an order in which none needs one that comes later.
        state: what was found in Datadog.
        prune: remove what is ours and not among them.
        tell: is told of each step, except of what was right already.
    """
    plan = planned(resources, state)
    actions = {one.name: one for one in plan.changes}

    def steps(work: _Work) -> Iterator[Step]:
        for one in resources:
            yield work.ensure(one, actions[f"{one.kind}:{one.key}"])
        for change in plan.of(REMOVE) if prune else ():
            yield work.remove(change)

    return _reported(_Work(api, state.ids()), steps, tell)


def destroy(api: Api, changes: Sequence[Change], *, tell: Tell) -> Report:
    """Remove what is ours, in this order."""
    return _reported(_Work(api, {}), lambda work: (work.remove(one) for one in changes), tell)


def _reported(work: _Work, steps: Callable[[_Work], Iterator[Step]], tell: Tell) -> Report:
    report = Report()
    try:
        for step in steps(work):
            report.steps.append(step)
            if step.outcome != KEPT:
                tell(step)
    except KeyboardInterrupt:
        report.is_interrupted = True
    return report


def _in_words(name: str) -> str:
    """Return `kind:key` as it is read."""
    kind, _, key = name.partition(":")
    return key if key.startswith(f"{kind}/") else f"{kind} {key}"


class _Work:
    """The requests of one apply: ids of what is there, and what there is no use in asking for again."""

    def __init__(self, api: Api, ids: dict[str, str | int]) -> None:
        self._api = api
        self._ids: dict[str, str | int] = ids
        self._without: dict[str, str] = {}
        self._forbidden: dict[str, str] = {}
        self._stopped = ""
        self._lost = 0

    def ensure(self, one: Resource, change: Change) -> Step:
        """Make one as it is rendered."""
        name = f"{one.kind}:{one.key}"
        if change.action == FOREIGN:
            self._without[name] = "is not ours"
            words = "somebody else declared it: give it the tags that docs/dashboards.md names to hand it over"
            return Step(LEFT, one.kind, one.key, change.id, words)
        for need in one.needs:
            if need not in self._ids:
                why = self._without.get(need, "is not there")
                self._without[name] = "was skipped"
                return Step(SKIPPED, one.kind, one.key, change.id, f"needs {_in_words(need)}, which {why}")
        body = filled(one.body, self._ids)
        # Planned before its needs were made, it was compared with words in place of their ids.
        if change.action == KEEP:
            return Step(KEPT, one.kind, one.key, change.id)
        return self._tried(one.kind, one.key, change.id, lambda: self._ensure(one, body, change))

    def _ensure(self, one: Resource, body: dict[str, Any], change: Change) -> Step:
        kind, name = AT[one.kind], f"{one.kind}:{one.key}"
        if change.action == CREATE:
            found, is_new = self._made(one, body)
            self._ids[name] = found.id
            kept = differences(body, found.body)
            if is_new or not kept:
                return Step(CREATED, one.kind, one.key, found.id, kept=tuple(field.path for field in kept))
            change = Change(CHANGE, one.kind, one.key, change.title, found.id)
        id_ = self._ids[name]
        kept = differences(body, kind.change(self._api, id_, body))
        return Step(CHANGED, one.kind, one.key, id_, kept=tuple(field.path for field in kept))

    def _made(self, one: Resource, body: dict[str, Any]) -> tuple[Found, bool]:
        """Make one, once: return it, and whether the answer to a create told of it."""
        for attempt in range(1, _CREATES + 1):
            try:
                return AT[one.kind].make(self._api, body), True
            except LostError:
                # It may be there. Lists of Datadog can be a moment behind.
                if (found := self._looked_up(one)) is not None:
                    return found, False
                if attempt == _CREATES:
                    raise
        raise AssertionError

    def _looked_up(self, one: Resource) -> Found | None:
        for look in range(_LOOKS):
            self._api.wait(BACKOFF_S * 2**look)
            found = [each for each in AT[one.kind].listed(self._api, one.key) if each.key == one.key]
            if found:
                return oldest_first(found)[0]
        return None

    def remove(self, change: Change) -> Step:
        """Remove one."""
        assert change.id is not None
        id_ = change.id

        def removed() -> Step:
            AT[change.kind].remove(self._api, id_)
            return Step(REMOVED, change.kind, change.key, id_)

        return self._tried(change.kind, change.key, id_, removed)

    def _tried(self, kind: str, key: str, id_: str | int | None, work: Callable[[], Step]) -> Step:
        """Return what became of work; where it cannot go well it is not begun."""
        name = f"{kind}:{key}"
        if self._stopped:
            self._without[name] = "was not tried"
            return Step(SKIPPED, kind, key, id_, f"not tried: {self._stopped}")
        if kind in self._forbidden:
            self._without[name] = "was refused"
            return Step(FAILED, kind, key, id_, self._forbidden[kind])
        try:
            step = work()
        except ApiError as error:
            self._without[name] = "was refused" if isinstance(error, RefusedError) else "was not made"
            self._note(kind, error)
            return Step(FAILED, kind, key, id_, str(error))
        self._lost = 0
        return step

    def _note(self, kind: str, error: ApiError) -> None:
        """Keep what an error says of those that come next."""
        self._lost = self._lost + 1 if isinstance(error, LostError) else 0
        if isinstance(error, StopError) or self._lost >= _LOST_IN_A_ROW:
            self._stopped = str(error)
        if isinstance(error, RefusedError) and error.is_forbidden:
            self._forbidden[kind] = str(error)
