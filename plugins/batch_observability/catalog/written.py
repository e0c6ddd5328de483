"""
One file of a catalog as it is written: values as text with their lines, and all that is wrong with them.

Values are taken as they are written, and not as YAML reads them: `1.10` is a version and `12:30` a time of day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch_observability.catalog.fields import (
    CONTACT_KEYS,
    DEFAULT_KEYS,
    FILE_KEYS,
    LINK,
    MATCH_KEYS,
    MODEL_KEYS,
    OWNER_KEYS,
    SLA_KEYS,
    Key,
)
from batch_observability.catalog.nodes import Node, Nodes, is_null, seen
from batch_observability.catalog.values import Mistake
from batch_observability.model import BatchModel
from batch_observability.objective import ModelError

_MAX_LINKS = 50


@dataclass
class Entry:
    """
    A model, or the defaults of a file, with what is right; `lines` also has what is wrong.

    Values are text; of `owner`, `sla` and `links` a mapping of texts, of `match` a list of such.
    """

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


@dataclass
class Written:
    """What a file says: its models, its owners as (team, contact and more, line), and what is wrong."""

    models: list[Entry] = field(default_factory=list)
    owners: list[tuple[str, dict[str, str], int]] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)


def written(path: Path) -> Written:
    """
    Read a file.

    Raises:
        OSError: if it cannot be read.
    """
    import yaml

    content = path.read_bytes()
    reader = _Reader(path)
    try:
        root = yaml.compose(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if root is not None:
            reader.file(root)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        what = " ".join(str(getattr(error, "problem", None) or "it cannot be parsed").split())
        text = f"no YAML: {what}; mend the line"
        line = mark.line + 1 if mark else 0
        reader.found.mistakes = [Mistake(str(path), line, "", text if line else f"{path}: {text}")]
    return reader.found


class _Reader:
    """Reads the nodes of a file; what is wrong is noted, and passed over."""

    def __init__(self, path: Path) -> None:
        self._nodes = Nodes(str(path))
        self.found = Written(mistakes=self._nodes.mistakes)

    def file(self, root: Node) -> None:
        top = self._nodes.mapping(root, "the file", FILE_KEYS)
        if top is None:
            return
        if not top and not self._nodes.mistakes:
            self._nodes.wrong(root, "", "the file has no models: write 'models:' and a list below it")
        if "owners" in top:
            self._owners(top["owners"][1])
        defaults = Entry()
        if "defaults" in top:
            nodes = self._nodes.mapping(top["defaults"][1], "defaults", DEFAULT_KEYS)
            defaults = self._entry(nodes or {}, "of defaults", "defaults")
        for node in self._items(top["models"][1]) if "models" in top else ():
            if (entry := self._model(node)) is not None:
                self.found.models.append(_with_defaults(entry, defaults))

    def _items(self, models: Node) -> Iterator[Node]:
        if isinstance(models.value, list) and models.id == "sequence":
            yield from models.value
        else:
            remedy = "write a list, each beginning with '- name: ...'"
            self._nodes.wrong(models, "models", f"models is {seen(models)}: {remedy}")

    def _model(self, node: Node) -> Entry | None:
        nodes = self._nodes.mapping(node, "a model", MODEL_KEYS)
        if nodes is None:
            return None
        if "name" not in nodes:
            self._nodes.wrong(node, "name", "a model has no name: write 'name:' and what it is called")
        name = self._nodes.text(nodes["name"][1], "name", "name") if "name" in nodes else None
        if name is not None:
            try:
                BatchModel(name=name)
            except ModelError as error:
                self._nodes.wrong(nodes["name"][1], "name", str(error))
                name = None
        entry = self._entry(nodes, f"of model {name!r}" if name else "of a model", name or "model")
        return entry if name is not None else None

    def _entry(self, nodes: Mapping[str, tuple[int, Node]], whose: str, name: str) -> Entry:
        entry = Entry()
        of_parts: Mapping[str, Callable[[Node, str, Entry], Any]] = {
            "owner": self._owner,
            "sla": self._sla,
            "links": self._links,
            "match": self._matches,
        }
        for key, (line, node) in nodes.items():
            entry.lines[key] = line
            if key == "name":
                value: Any = name if self._nodes.is_text(node) else None
            elif key in of_parts:
                value = of_parts[key](node, whose, entry)
            else:
                value = self._value(node, key, f"{key} {whose}", MODEL_KEYS[key], name)
            if value is not None:
                entry.values[key] = value
        return entry

    # --- What a value may be ---------------------------------------------------------------------------------

    def _value(self, node: Node, key: str, what: str, known: Key, model: str = "model") -> str | None:
        """Return the text of a value if it is right."""
        text = self._nodes.text(node, key, what)
        if text is None:
            return None
        try:
            if known.of_model:
                text = " ".join(text.split()) if key == "description" else text
                fields: dict[str, Any] = {"name": model, key: text}
                BatchModel(**fields)
            elif known.check is not None:
                known.check(text)
        except ModelError as error:
            self._nodes.wrong(node, key, str(error) if known.of_model else f"{what} is {text!r}: {error}")
            return None
        return text

    def _owner(self, node: Node, whose: str, entry: Entry) -> dict[str, str] | None:
        if node.id != "mapping":
            team = self._value(node, "owner", f"owner {whose}", OWNER_KEYS["team"])
            return None if team is None else {"team": team}
        owner = self._parts(node, "owner", f"owner {whose} is a mapping and", whose, known=OWNER_KEYS, entry=entry)
        if owner is not None and "team" not in owner and "owner.team" not in entry.lines:
            self._nodes.wrong(node, "owner", f"owner {whose} is a mapping without team: write 'team:' and its name")
        return owner if owner and "team" in owner else None

    def _sla(self, node: Node, whose: str, entry: Entry) -> dict[str, str] | None:
        nodes = self._nodes.mapping(node, f"sla {whose}", SLA_KEYS, "sla")
        if nodes is None:
            return None
        right = {}
        for key, (line, value) in nodes.items():
            entry.lines[f"sla.{key}"] = line
            text = self._nodes.text(value, f"sla.{key}", f"{key} {whose}")
            try:
                if text is not None:
                    BatchModel(name="model", sla={key: text})  # type: ignore[arg-type]  # a mapping is read as one
                    right[key] = text
            except ModelError as error:
                said = str(error).replace(" of model 'model'", f" {whose}", 1)
                self._nodes.wrong(value, f"sla.{key}", said)
        return right

    def _parts(
        self, node: Node, of: str, what: str, whose: str, *, known: Mapping[str, Key], entry: Entry
    ) -> dict[str, str] | None:
        """Return what is right of a mapping of texts."""
        nodes = self._nodes.mapping(node, what, known, of)
        if nodes is None:
            return None
        right = {}
        for key, (line, value) in nodes.items():
            entry.lines[f"{of}.{key}"] = line
            text = self._value(value, f"{of}.{key}", f"{key} {whose}", known[key])
            if text is not None:
                right[key] = text
        return right

    def _links(self, node: Node, whose: str, entry: Entry) -> dict[str, str] | None:
        nodes = self._nodes.mapping(node, f"links {whose}", None, "links")
        if nodes is None:
            return None
        right = {}
        for key, (line, value) in nodes.items():
            entry.lines[f"links.{key}"] = line
            text = self._value(value, f"links.{key}", f"link {key!r} {whose}", LINK)
            if text is not None:
                right[key] = text
        if len(nodes) > _MAX_LINKS:
            self._nodes.wrong(node, "links", f"links {whose} are {len(nodes)}: write up to {_MAX_LINKS}")
        return right

    def _matches(self, node: Node, whose: str, entry: Entry) -> list[dict[str, str]] | None:
        right = []
        for one in node.value if node.id == "sequence" else [node]:
            if one.id != "mapping":
                remedy = "write {dag_id: ..., task_id: ...}, or a list of such"
                self._nodes.wrong(one, "match", f"match {whose} is {seen(one)}: {remedy}")
                continue
            if not one.value:
                self._nodes.wrong(
                    one, "match", f"match {whose} is empty, and so every task: write dag_id, task_id or both"
                )
                continue
            parts = self._parts(one, "match", f"match {whose}", whose, known=MATCH_KEYS, entry=entry)
            # With one of its ids wrong it would match too much.
            if parts and len(parts) == len(one.value):
                right.append(parts)
        return right or None

    def _owners(self, node: Node) -> None:
        if node.id == "sequence":
            for one in node.value:
                entry = Entry()
                owner = self._parts(one, "owners", "an owner", "of an owner", known=OWNER_KEYS, entry=entry)
                if owner is not None and "team" not in owner and "owners.team" not in entry.lines:
                    self._nodes.wrong(one, "owners", "an owner has no team: write 'team:' and its name")
                if owner and "team" in owner:
                    self.found.owners.append((owner.pop("team"), owner, entry.lines["owners.team"]))
            return
        for team, (line, value) in (self._nodes.mapping(node, "owners", None, "owners") or {}).items():
            try:
                if (check := OWNER_KEYS["team"].check) is not None:
                    check(team)
            except ModelError as error:
                self._nodes.wrong(value, "owners", f"owners has {team!r}: {error}", line)
                continue
            rest: dict[str, str] | None = {}
            if not is_null(value):
                rest = self._parts(
                    value, "owners", f"owner {team!r}", f"of owner {team!r}", known=CONTACT_KEYS, entry=Entry()
                )
            self.found.owners.append((team, rest or {}, line))


def _with_defaults(entry: Entry, defaults: Entry) -> Entry:
    """Return a model with what it does not say itself; of an SLA and of links, what these do not."""
    values = {**defaults.values, **entry.values}
    for key in ("sla", "links"):
        if key in defaults.values and key in entry.values:
            values[key] = {**defaults.values[key], **entry.values[key]}
    # A value that is wrong is not replaced by that of the defaults: it is to be mended.
    values = {key: value for key, value in values.items() if key in entry.values or key not in entry.lines}
    return Entry(values, {**defaults.lines, **entry.lines})
