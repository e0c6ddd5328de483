"""
What `batchobs datadog` says: a plan as a diff that is read before it is applied, and what became of each resource.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from difflib import unified_diff
from typing import Any

from batch_observability.cli.words import one_line
from batch_observability.datadog.apply import CHANGED, CREATED, FAILED, KEPT, LEFT, REMOVED, SKIPPED, Report, Step
from batch_observability.datadog.compare import MISSING, Difference
from batch_observability.datadog.plan import CHANGE, CREATE, FOREIGN, KEEP, REMOVE, Change, Plan

_SIGNS = {CREATE: "+", CHANGE: "~", REMOVE: "-", FOREIGN: "!"}
_OUTCOMES = {CREATED: "+", CHANGED: "~", REMOVED: "-", LEFT: "!", FAILED: "!", SKIPPED: "!"}
# Longer values are read in Datadog.
_WIDTH = 200


def plan_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines of a plan; what stays as it is, is counted only."""
    for one in plan.changes:
        if one.action != KEEP:
            yield from _change_lines(one)
    yield from notes(plan)
    yield plan_summary(plan)


def _change_lines(one: Change) -> Iterator[str]:
    note = {
        REMOVE: "  (only with --prune)",
        FOREIGN: "  (somebody else declared it: left alone)",
    }.get(one.action, "")
    yield f"{_SIGNS[one.action]} {_named(one.kind, one.key, one.id)}  {one_line(one.title)}{note}"
    for field in one.fields:
        yield from _field_lines(field)


def removal_lines(changes: Iterable[Change]) -> Iterator[str]:
    """Yield a line for each thing that is about to be removed."""
    return (f"- {_named(one.kind, one.key, one.id)}  {one_line(one.title)}" for one in changes)


def notes(plan: Plan) -> Iterator[str]:
    """Yield a line for each thing that has the mark of an older one, and for what else should be known."""
    for one in plan.copies:
        yield (
            f"! {_named(one.kind, one.key, one.id)}  {one_line(one.title)}  (a copy of an older one, with its mark: "
            "left alone; take the mark off it, or remove it)"
        )
    yield from (f"! {one_line(warning)}" for warning in plan.warnings)


def plan_summary(plan: Plan) -> str:
    """Return how many there are of each action, in one line."""
    parts = [
        f"{len(plan.of(CREATE))} to create",
        f"{len(plan.of(CHANGE))} to change",
        f"{len(plan.of(REMOVE))} to remove with --prune",
        f"{len(plan.of(KEEP))} unchanged",
    ]
    left = len(plan.of(FOREIGN)) + len(plan.copies)
    return f"Plan: {', '.join(parts)}{f', {left} left alone' if left else ''}."


def _named(kind: str, key: str, id_: str | int | None) -> str:
    where = f" ({id_})" if id_ is not None else ""
    return one_line(f"{kind} {key.removeprefix(f'{kind}/')}{where}")


def _field_lines(field: Difference) -> Iterator[str]:
    yield f"    {field.path}"
    if _are_texts(field.before) and _are_texts(field.after) and set(field.before) != set(field.after):
        yield from (f"      - {_cut(one)}" for one in field.before if one not in field.after)
        yield from (f"      + {_cut(one)}" for one in field.after if one not in field.before)
        return
    before, after = _text(field.before), _text(field.after)
    if "\n" in before or "\n" in after:
        lines = list(unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1))
        # Without the two lines that name files.
        yield from (f"      {line[0]}{_cut(line[1:], indented=True)}".rstrip() for line in lines[2:])
        return
    yield f"      - {_cut(before)}"
    yield f"      + {_cut(after)}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return repr(value) if value is MISSING else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _cut(text: str, *, indented: bool = False) -> str:
    """Return a text as a line that can be read; `indented` keeps the blanks before it."""
    before = text[: len(text) - len(text.lstrip())] if indented else ""
    line = one_line(text)
    return before + (line if len(line) <= _WIDTH else f"{line[:_WIDTH]}...")


# --- What was done -----------------------------------------------------------------------------------------------


def step_lines(step: Step) -> Iterator[str]:
    """Yield what became of one resource, and which fields Datadog has otherwise right after it took them."""
    reason = f": {one_line(step.reason)}" if step.reason else ""
    yield f"{_OUTCOMES[step.outcome]} {_named(step.kind, step.key, step.id)} {step.outcome}{reason}"
    for path in step.kept:
        yield f"    {path}: Datadog keeps another value than was sent; the next plan will show it"


def report_summary(report: Report) -> str:
    """Return how many ended how, in one line, and what to do if that is not all."""
    always = [f"{report.count(outcome)} {outcome}" for outcome in (CREATED, CHANGED, REMOVED, KEPT)]
    others = [f"{found} {outcome}" for outcome in (LEFT, FAILED, SKIPPED) if (found := report.count(outcome))]
    text = f"Done: {', '.join([*always, *others])}."
    if report.is_interrupted:
        return f"{text} Interrupted: run it again, it goes on from here."
    if not report.is_done:
        names = [one.key for one in report.steps if one.outcome == FAILED]
        listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        return f"{text} Failed: {listed or 'nothing'}. Mend it and run it again: it goes on from here."
    return text
