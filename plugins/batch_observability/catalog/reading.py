"""
`batch_models.yaml`: models with their owners and objectives, and of cron jobs when and how they run.

Values are taken as they are written, and not as YAML reads them: `1.10` is a version and `12:30` a time of day. What
was read is kept as JSON beside other state, for those who start with each job and have no time to read YAML.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from batch_observability.catalog.values import Catalog, Cataloged, CatalogError
from batch_observability.model import BatchModel
from batch_observability.objective import PARSERS, ModelError, parse_duration
from batch_observability.private import private_folder, write_private

OVERLAPS = ("allow", "skip", "wait")
_OF_MODEL = ("name", "version", "service", "owner", "tier", "description", "runbook", "sla")
_OF_JOB = ("schedule", "timezone", "timeout", "grace", "overlap", "retries", "env_file")
_KEYS = (*_OF_MODEL, *_OF_JOB)
# What a catalog is cached as; another number for another form.
_FORM = 1
_MAX_RETRIES = 100

# A value as it is written, or those of `sla`, each with its line.
Written = tuple[str, int]
Entry = dict[str, Any]


def load(path: Path | None, cache: Path | None = None) -> Catalog:
    """
    Read a catalog.

    Args:
        path: of the file; None if there is none.
        cache: folder where what was read may be kept.

    Raises:
        CatalogError: naming file, line, key, value and remedy.
    """
    if path is None:
        return Catalog()
    try:
        stat = path.stat()
        stamp = [_FORM, str(path.absolute()), stat.st_mtime_ns, stat.st_size]
        entries = _cached(cache, stamp)
        if entries is None:
            entries = list(_entries(path))
            _keep(cache, stamp, entries)
    except OSError as error:
        raise CatalogError(f"catalog {path} cannot be read: {error.strerror}; name another, or none") from None
    models: dict[str, Cataloged] = {}
    for entry in entries:
        one = _cataloged(str(path), entry)
        if (other := models.get(one.model.name)) is not None:
            raise one.mistake(
                "name", f"model {one.model.name!r} is in line {other.lines['name']} already: join the two"
            )
        models[one.model.name] = one
    return Catalog(models=models, files=(path,))


def _cataloged(file: str, entry: Entry) -> Cataloged:
    lines = {key: line for key, (_, line) in entry.items()}
    values = {key: value for key, (value, _) in entry.items()}
    name = values["name"]

    def parsed(key: str, parse: Callable[[str], Any]) -> Any:
        try:
            return parse(values[key]) if key in values else None
        except ModelError as error:
            raise CatalogError(f"{file}:{lines[key]}: {key} of model {name!r} is {values[key]!r}: {error}") from None

    for objective, (value, line) in values.get("sla", {}).items():
        try:
            PARSERS[objective](value)
        except ModelError as error:
            raise CatalogError(f"{file}:{line}: SLA {objective!r} of model {name!r} is {value!r}: {error}") from None
    of_model = {key: values[key] for key in _OF_MODEL if key in values}
    if "sla" in of_model:
        of_model["sla"] = {key: value for key, (value, _) in of_model["sla"].items()}
    return Cataloged(
        model=_model(file, of_model, lines),
        schedule=values.get("schedule", ""),
        timezone=values.get("timezone", ""),
        timeout=parsed("timeout", parse_duration),
        grace=parsed("grace", parse_duration),
        overlap=parsed("overlap", _overlap) or "",
        retries=parsed("retries", _retries),
        env_file=values.get("env_file", ""),
        file=file,
        lines=lines,
    )


def _model(file: str, values: dict[str, Any], lines: dict[str, int]) -> BatchModel:
    name = values["name"]
    # One by one, so that a mistake is told with the line of its key.
    for key in _OF_MODEL:
        if key in values:
            try:
                BatchModel(**{"name": name, key: values[key]})
            except ModelError as error:
                raise CatalogError(f"{file}:{lines[key]}: {error}") from None
    return BatchModel(**values)


def _overlap(text: str) -> str:
    if text not in OVERLAPS:
        raise ModelError(f"none of {', '.join(OVERLAPS)}; write one of these")
    return text


def _retries(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > _MAX_RETRIES:
        raise ModelError(f"not a number from 0 to {_MAX_RETRIES}; write for example 2")
    return int(text)


# --- Reading YAML ------------------------------------------------------------------------------------------------


def _entries(path: Path) -> Iterator[Entry]:
    import yaml

    try:
        root = yaml.compose(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or "it cannot be parsed"
        raise CatalogError(f"{path}{line}: no YAML: {' '.join(str(what).split())}; mend the line") from None
    if root is None:
        return
    top = _mapping(path, root, "the file", ("models",))
    if "models" not in top:
        raise _wrong(path, root, "the file has no models: write 'models:' and a list below it")
    models = top["models"]
    if not isinstance(models, yaml.SequenceNode):
        raise _wrong(path, models, f"models is {_seen(models)}: write a list, each beginning with '- name: ...'")
    for node in models.value:
        values = _mapping(path, node, "a model", _KEYS)
        if "name" not in values:
            raise _wrong(path, node, "a model has no name: write 'name:' and what it is called")
        name = _text(path, values["name"], "name")
        whose = f"of model {name!r}"
        yield {
            key: (_sla(path, value, whose) if key == "sla" else _text(path, value, f"{key} {whose}"), _line(value))
            for key, value in values.items()
        }


def _sla(path: Path, node: Any, whose: str) -> dict[str, Written]:
    values = _mapping(path, node, f"sla {whose}", tuple(PARSERS))
    return {key: (_text(path, value, f"{key} {whose}"), _line(value)) for key, value in values.items()}


def _mapping(path: Path, node: Any, what: str, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of a mapping by key; those that are merged in (`<<: *defaults`) give way."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise _wrong(path, node, f"{what} is {_seen(node)}: write keys and values, such as {known[0]}: ...")
    merged: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for key, value in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            if value is node:
                raise _wrong(path, key, f"{what} is merged into itself: name another")
            merged = {**_mapping(path, value, what, known), **merged}
            continue
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else _seen(key)
        if name not in known:
            close = get_close_matches(name, known, n=1)
            remedy = f"write {close[0]}" if close else f"write one of {', '.join(known)}"
            raise _wrong(path, key, f"{what} has {name!r}: {remedy}")
        if name in found:
            raise _wrong(path, key, f"{what} has {name!r} twice: leave one out")
        found[name] = value
    return {**merged, **found}


def _text(path: Path, node: Any, what: str) -> str:
    import yaml

    if not isinstance(node, yaml.ScalarNode):
        raise _wrong(path, node, f"{what} is {_seen(node)}: write one value")
    if node.tag == "tag:yaml.org,2002:null" or not node.value.strip():
        raise _wrong(path, node, f"{what} is empty: write a value, or leave the key out")
    return str(node.value)


def _seen(node: Any) -> str:
    """Return what stands at a node, in a word or two."""
    return repr(node.value) if isinstance(node.value, str) else f"a {node.id}"


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


def _wrong(path: Path, node: Any, what: str) -> CatalogError:
    return CatalogError(f"{path}:{_line(node)}: {what}")


# --- Keeping what was read ---------------------------------------------------------------------------------------


def _cached(cache: Path | None, stamp: list[Any]) -> list[Entry] | None:
    if cache is None:
        return None
    try:
        kept = json.loads((cache / "catalog.json").read_text(encoding="utf-8"))
        return list(kept["models"]) if kept["of"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(cache: Path | None, stamp: list[Any], entries: list[Entry]) -> None:
    if cache is not None:
        try:
            private_folder(cache)
            write_private(cache / "catalog.json", json.dumps({"of": stamp, "models": entries}))
        except OSError:
            # It is read again the next time.
            return
