"""
A catalog read from its files: `batch_models.yaml`, or several files and folders of such.

What is wrong in one place costs what stands there, not the rest: the mistakes are returned with the models that are
right. What was read is kept as JSON beside other state (see `keeping`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch_observability.catalog.keeping import Record, keep, kept, stamp_of
from batch_observability.catalog.places import is_there
from batch_observability.catalog.values import Catalog, Cataloged, CatalogError, Match, Mistake, Owner, flag, retries
from batch_observability.model import BatchModel
from batch_observability.objective import ModelError, parse_duration

if TYPE_CHECKING:
    from batch_observability.catalog.written import Entry, Written

_OF_MODEL = ("name", "version", "service", "tier", "description", "runbook", "sla")


def load(paths: Path | Sequence[Path] | None, cache: Path | None = None) -> Catalog:
    """
    Read a catalog that has to be right.

    Args:
        paths: of files and folders; None if there are none.
        cache: folder where what was read may be kept.

    Raises:
        CatalogError: the first mistake, naming file, line, key, value and remedy.
    """
    catalog, mistakes = read([] if paths is None else [paths] if isinstance(paths, Path) else paths, cache)
    if mistakes:
        raise CatalogError(str(mistakes[0]))
    return catalog


def read(paths: Iterable[Path], cache: Path | None = None) -> tuple[Catalog, list[Mistake]]:
    """
    Read a catalog with all that is wrong in it.

    A value that is wrong is left out of its model, a model without a usable name out of the catalog; of two models
    with one name the first counts.

    Args:
        paths: of files, and of folders, which are their `*.yaml` and `*.yml` files in the order of their names.
        cache: folder where what was read may be kept.

    Returns:
        The catalog, and the mistakes by file and line.
    """
    paths = list(dict.fromkeys(paths))
    if not paths:
        return Catalog(), []
    files, mistakes = files_of(paths)
    stamp = stamp_of(paths, files)
    if cache is not None and (record := kept(cache, stamp)) is not None:
        try:
            return catalog_of(record), record.mistakes
        except ModelError:
            # What is right depends on the setting `strict` too.
            pass
    record = joined(files, mistakes)
    if cache is not None:
        keep(cache, stamp, record)
    return catalog_of(record), record.mistakes


def files_of(paths: Iterable[Path]) -> tuple[list[Path], list[Mistake]]:
    """Return the files of paths, each once; and what is wrong with these."""
    files: dict[Path, None] = {}
    mistakes = []
    for path in paths:
        if not is_there(path, folder=True):
            files[path] = None
            continue
        try:
            found = sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml") and is_there(one))
        except OSError as error:
            mistakes.append(_unreadable(path, error))
            continue
        if not found:
            text = f"catalog {path} holds no *.yaml file: put one there, or name another folder or file"
            mistakes.append(Mistake(str(path), 0, "", text))
        files |= dict.fromkeys(found)
    return list(files), mistakes


def _unreadable(path: Path, error: OSError) -> Mistake:
    return Mistake(str(path), 0, "", f"catalog {path} cannot be read: {error.strerror}; name another, or none")


def joined(files: Iterable[Path], mistakes: Iterable[Mistake]) -> Record:
    """Read files, and join them to one catalog."""
    from batch_observability.catalog.written import written

    record = Record(files=[], mistakes=list(mistakes))
    found: list[tuple[str, Written]] = []
    for path in files:
        try:
            found.append((str(path), written(path)))
            record.files.append(str(path))
        except OSError as error:
            record.mistakes.append(_unreadable(path, error))
    said_at: dict[str, tuple[str, int]] = {}
    for file, one in found:
        for team, contact, line in one.owners:
            if team in record.owners:
                place = _place(said_at[team], file)
                text = f"owner {team!r} is in {place} already: join the two"
                one.mistakes.append(Mistake(file, line, "owners", text))
            else:
                record.owners[team], said_at[team] = contact, (file, line)
    for file, one in found:
        for entry in one.models:
            name = entry.values["name"]
            if name in record.models:
                other, lines = record.models[name]["file"], record.models[name]["lines"]
                text = f"model {name!r} is in {_place((other, lines['name']), file)} already: join the two"
                one.mistakes.append(Mistake(file, entry.lines["name"], "name", text))
            else:
                record.models[name] = _model(file, entry, record.owners)
        record.mistakes += sorted(one.mistakes, key=lambda mistake: mistake.line)
    return record


def _place(other: tuple[str, int], here: str) -> str:
    file, line = other
    return f"line {line}" if file == here else f"{file}:{line}"


def _model(file: str, entry: Entry, owners: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return a model as it is kept: with the contact of its team, which may stand in another file."""
    values = dict(entry.values)
    if "owner" in values:
        values["owner"] = {**owners.get(values["owner"]["team"], {}), **values["owner"]}
    return {"file": file, "values": values, "lines": entry.lines}


def catalog_of(record: Record) -> Catalog:
    """
    Return the catalog that was kept.

    Raises:
        ModelError: if what was right then is not any more.
    """
    return Catalog(
        models={name: cataloged(one) for name, one in record.models.items()},
        owners={team: Owner(team=team, **contact) for team, contact in record.owners.items()},
        files=tuple(map(Path, record.files)),
    )


def cataloged(one: dict[str, Any]) -> Cataloged:
    """
    Return a model that was kept.

    Raises:
        ModelError: if what was right then is not any more.
    """
    values = one["values"]
    owner = Owner(**values["owner"]) if "owner" in values else None
    fields = {key: values[key] for key in _OF_MODEL if key in values}
    if owner is not None:
        fields["owner"] = owner.team
    return Cataloged(
        model=BatchModel(**fields),
        owner=owner,
        match=tuple(Match(**match) for match in values.get("match", ())),
        links=dict(values.get("links", {})),
        schedule=values.get("schedule", ""),
        timezone=values.get("timezone", ""),
        timeout=parse_duration(values["timeout"]) if "timeout" in values else None,
        grace=parse_duration(values["grace"]) if "grace" in values else None,
        overlap=values.get("overlap", ""),
        retries=retries(values["retries"]) if "retries" in values else None,
        env_file=values.get("env_file", ""),
        instrument=flag(values["instrument"]) if "instrument" in values else None,
        file=one["file"],
        lines=dict(one["lines"]),
        given=frozenset(fields) - {"sla"} | {f"sla.{key}" for key in values.get("sla", {})},
    )
