"""
Nodes of YAML as a catalog has them: mappings with the lines of their keys, texts, and what is wrong with either.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from batch_observability.catalog.values import Mistake

_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"

# Of PyYAML, which is loaded when a file is read only.
Node = Any


class Nodes:
    """
    Reads the nodes of a file, and notes what is wrong with them.

    Attributes:
        mistakes: in the order in which they were found.
    """

    def __init__(self, file: str) -> None:
        self.mistakes: list[Mistake] = []
        self._file = file
        # What is merged into several models is wrong once.
        self._told: set[tuple[int, str]] = set()

    def mapping(
        self, node: Node, what: str, known: Collection[str] | None, of: str = "", inside: tuple[Node, ...] = ()
    ) -> dict[str, tuple[int, Node]] | None:
        """Return line and value by key; those that are merged in (`<<: *defaults`) give way. None: it is none."""
        if node.id != "mapping":
            example = next(iter(known or ("name",)))
            self.wrong(node, of, f"{what} is {seen(node)}: write keys and values, such as {example}: ...")
            return None
        merged: dict[str, tuple[int, Node]] = {}
        found: dict[str, tuple[int, Node]] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                for part in value.value if value.id == "sequence" else [value]:
                    if any(part is one for one in (*inside, node)):
                        self.wrong(key, of, f"{what} is merged into itself: name another")
                        continue
                    more = self.mapping(part, what, known, of, (*inside, node)) or {}
                    merged = {**more, **merged}
                continue
            name = str(key.value) if key.id == "scalar" else seen(key)
            if known is not None and name not in known:
                close = get_close_matches(name, known, n=1)
                remedy = f"write {close[0]}" if close else f"write one of {', '.join(known)}"
                self.wrong(key, f"{of}.{name}" if of else name, f"{what} has {name!r}: {remedy}")
            elif name in found:
                self.wrong(key, f"{of}.{name}" if of else name, f"{what} has {name!r} twice: leave one out")
            else:
                found[name] = (line_of(key), value)
        return {**merged, **found}

    def is_text(self, node: Node) -> bool:
        """Whether there is a text, and one with something in it."""
        return node.id == "scalar" and node.tag != _NULL and bool(node.value.strip())

    def text(self, node: Node, key: str, what: str) -> str | None:
        """Return the text of a node; None if it has none."""
        if self.is_text(node):
            return str(node.value).strip()
        if node.id == "scalar":
            self.wrong(node, key, f"{what} is empty: write a value, or leave the key out")
        else:
            self.wrong(node, key, f"{what} is {seen(node)}: write one value")
        return None

    def wrong(self, node: Node, key: str, text: str, line: int = 0) -> None:
        """Note that something is wrong with a node, or in a line that belongs to it."""
        place = (int(node.start_mark.index), key)
        if place not in self._told:
            self._told.add(place)
            self.mistakes.append(Mistake(self._file, line or line_of(node), key, text))


def seen(node: Node) -> str:
    """Return what stands at a node, in a word or two."""
    return repr(node.value) if isinstance(node.value, str) else f"a {node.id}"


def line_of(node: Node) -> int:
    """Return the line that a node begins in."""
    return int(node.start_mark.line) + 1


def is_null(node: Node) -> bool:
    """Whether nothing stands at a node."""
    return bool(node.tag == _NULL)
