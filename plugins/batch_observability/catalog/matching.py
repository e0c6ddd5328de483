"""
Which of many patterns a task's ids match: asked for at every start of a task and every parse of a DAG.

A pattern means what `fnmatch.fnmatchcase` makes of it. That compiles a regular expression of each, which takes a new
process longer than all the rest of a task's start; patterns with stars only are compared without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_WILD = re.compile(r"[*?]|\[[^\]]*\]")

# Name of a model, and patterns of DAG id and task id.
Pattern = tuple[str, str, str]


class Patterns:
    """
    Names by patterns.

    Args:
        of: each name and its patterns of DAG id and task id, in the order in which they count.
    """

    def __init__(self, of: Iterable[Pattern | Sequence[str]]) -> None:
        self.all: tuple[Pattern, ...] = tuple((name, dag_id, task_id) for name, dag_id, task_id in of)
        self._exact: dict[str, list[Pattern]] = {}
        self._open: list[Pattern] = []
        for one in self.all:
            if _WILD.search(one[1]):
                self._open.append(one)
            else:
                self._exact.setdefault(one[1], []).append(one)
        # The tasks of a DAG are asked for one after the other.
        self._of_dag: tuple[str, list[Pattern]] = ("", [])

    def names(self, dag_id: str, task_id: str) -> list[str]:
        """Return the names of what a task matches, the closest first: by how much of its ids is written out."""
        asked, found = self._of_dag
        if asked != dag_id:
            found = [*self._exact.get(dag_id, ()), *(one for one in self._open if fits(one[1], dag_id))]
            self._of_dag = dag_id, found
        matched = [one for one in found if fits(one[2], task_id)]
        return list(dict.fromkeys(name for name, *_ in sorted(matched, key=_openness)))


def is_open(pattern: str) -> bool:
    """Whether a pattern may match several ids."""
    return _WILD.search(pattern) is not None


def fits(pattern: str, text: str) -> bool:
    """Whether a pattern matches the whole of a text, capitals counting."""
    if "?" in pattern or "[" in pattern:
        from fnmatch import fnmatchcase

        return fnmatchcase(text, pattern)
    head, *rest = pattern.split("*")
    if not rest:
        return text == head
    *middle, tail = rest
    at, end = len(head), len(text) - len(tail)
    if at > end or not text.startswith(head) or not text.endswith(tail):
        return False
    for piece in middle:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def _openness(one: Pattern) -> tuple[bool, int, bool, int]:
    """Return what is the less the closer a match is: a whole id before a part, a DAG's before a task's."""
    _, dag_id, task_id = one
    return bool(_WILD.search(dag_id)), -_written(dag_id), bool(_WILD.search(task_id)), -_written(task_id)


def _written(pattern: str) -> int:
    return len(_WILD.sub("", pattern))
