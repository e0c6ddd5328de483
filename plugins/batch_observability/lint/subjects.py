"""
The models that are looked at: those of a catalog and those of DAG files, each with what the other knows of it.

Code goes before the catalog, as where it runs: a model in code whose owner is in the catalog has an owner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from batch_observability.catalog import Catalog, Cataloged, Owner
from batch_observability.catalog.merging import merged
from batch_observability.lint.dag_files import MEASURE, STAGE, DagFile
from batch_observability.lint.declared import FIELDS, SLA_KEY, Declaration
from batch_observability.lint.findings import Subject
from batch_observability.lint.globs import is_exact, matches
from batch_observability.lint.reading import UNKNOWN
from batch_observability.model import BatchModel


def subjects(catalog: Catalog, files: Sequence[DagFile]) -> list[Subject]:
    """Return all models, those of the catalog first."""
    in_code = [one for file in files for one in _of_file(file, catalog)]
    first: dict[str, Subject] = {}
    for one in in_code:
        first.setdefault(one.model.name, one)
    every_task = [task for file in files for task in file.tasks]
    of_catalog = [_of_catalog(one, first.get(name), every_task) for name, one in catalog.models.items()]
    return [*of_catalog, *in_code]


def _of_catalog(one: Cataloged, code: Subject | None, tasks: Collection[tuple[str, str]]) -> Subject:
    model, given = one.model, fields_of(one.given)
    described = code is not None and not one.match and not one.schedule
    if code is not None and described:
        # It has no runs of its own: what it does not say is as the code has it.
        model = BatchModel(**{name: getattr(model if name in given else code.model, name) for name in FIELDS})
    return Subject(
        model=model,
        owner=one.owner,
        given=given,
        unknown=_wrong(one) | (code.unknown if code is not None and described else frozenset()),
        file=one.file,
        line=one.lines.get("name", 0),
        places={key: (one.file, line) for key, line in one.lines.items()},
        match=one.match,
        tasks=tuple(_matched(one, tasks)),
        schedule=one.schedule,
        timezone=one.timezone,
        retries=one.retries,
        env_file=one.env_file,
        is_described=described,
    )


def fields_of(keys: Collection[str]) -> frozenset[str]:
    """Return the fields of a model that keys are of: `sla.finish_by` is of `sla`."""
    return frozenset(key.partition(".")[0] for key in keys)


def _wrong(one: Cataloged) -> frozenset[str]:
    """Return the fields whose values were left out because they are wrong: that is told already."""
    found = {key.partition(".")[0] for key in one.lines} & set(FIELDS) - fields_of(one.given) - {"name"}
    found |= {"sla"} if any(key.startswith(SLA_KEY) and key not in one.given for key in one.lines) else set()
    # The handle of a team that is written within the model.
    found |= {"oncall"} if "owner.oncall" in one.lines and not (one.owner and one.owner.oncall) else set()
    return frozenset(found)


def _matched(one: Cataloged, tasks: Collection[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the tasks that are a model by its patterns: of those that are known, and those that a pattern names."""
    found = dict.fromkeys(task for task in tasks if task[0] and any(matches(match, *task) for match in one.match))
    found |= dict.fromkeys((match.dag_id, match.task_id) for match in one.match if is_exact(match))
    yield from found


def _of_file(file: DagFile, catalog: Catalog) -> Iterator[Subject]:
    names = Counter(one.name for one in file.declarations)
    for one in file.declarations:
        recorded: dict[str, Any] = {}
        if len(names) == 1:
            # Of several models in a file nobody knows whose they are.
            recorded = {"stages": _recorded(file, STAGE), "measurements": _recorded(file, MEASURE)}
        yield in_code(one, catalog, tuple(file.tasks_of.get(one.key, ())), recorded)


def _recorded(file: DagFile, kind: str) -> frozenset[str] | None:
    found = [one.name for one in file.recorded if one.kind == kind]
    # What calls no stage itself may call somebody who does.
    return frozenset(name for name in found if name) if found and None not in found else None


def in_code(
    one: Declaration,
    catalog: Catalog,
    tasks: tuple[tuple[str, str], ...] = (),
    recorded: Mapping[str, Any] = {},
) -> Subject:
    """Return a model that is declared in code, with what the catalog adds."""
    wrong = {key.partition(".")[0] for key, _ in one.mistakes()}
    unknown = {key.partition(".")[0] for key, field in one.written.items() if field.value is UNKNOWN} | wrong
    unknown |= set(FIELDS) - set(one.written) if one.open else set()
    known = catalog.models.get(one.name) if "name" not in unknown else None
    code = one.model()
    model = merged(code, known)
    added = known.given - code.given - set(one.written) if known is not None else frozenset()
    places = {key: (one.file, field.line) for key, field in one.written.items()}
    if known is not None:
        places |= {key: (known.file, line) for key, line in known.lines.items() if key in added}
    return Subject(
        model=model,
        owner=owner_of(model, known, catalog),
        given=fields_of({*one.written, *added}),
        unknown=frozenset(unknown & set(FIELDS)),
        volatile={key: field.volatile for key, field in one.written.items() if field.volatile and key in unknown},
        file=one.file,
        line=one.line,
        places=places,
        tasks=tasks,
        in_code=True,
        **recorded,
    )


def owner_of(model: BatchModel, known: Cataloged | None, catalog: Catalog) -> Owner | None:
    """Return who answers for a model in code, as the catalog knows them."""
    team = model.owner.strip()
    if known is not None and known.owner is not None and known.owner.team == team:
        return known.owner
    return catalog.owners.get(team)
