"""
Patterns of names, as `fnmatch.fnmatchcase` has them: what two of them both match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import lru_cache

from batch_observability.catalog import Match

_TOKEN = re.compile(r"\*+|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
# What a pattern that takes any letter is tried with, after those that the other one names.
_ANY = "x_0"
# Names that no pattern names: who takes all of these takes all names.
_RARE = ("", "\x01", "\x01\x02", "\x01\x02\x03")


@lru_cache(maxsize=4096)
def both_match(one: str, other: str) -> str | None:
    """Return a name that two patterns both match, None if there is none."""
    left, right = _tokens(one), _tokens(other)
    seen: set[tuple[int, int]] = set()
    waiting = [(0, 0, "")]
    while waiting:
        i, j, name = waiting.pop()
        if i == len(left) and j == len(right):
            return name
        if (i, j) in seen:
            continue
        seen.add((i, j))
        waiting.extend(reversed(list(_steps(left, right, i, j, name))))
    return None


def _steps(left: list[str], right: list[str], i: int, j: int, name: str) -> Iterator[tuple[int, int, str]]:
    a, b = left[i] if i < len(left) else "", right[j] if j < len(right) else ""
    if a == "*":
        yield i + 1, j, name
    if b == "*":
        yield i, j + 1, name
    # A star that takes a letter may take more; what is past both stars gains nothing by it.
    if a and b and not (a == "*" and b == "*") and (letter := _letter(a, b)):
        yield i + (a != "*"), j + (b != "*"), name + letter


def _letter(one: str, other: str) -> str:
    """Return a letter that two tokens both take, "" if there is none."""
    patterns = ["?" if part == "*" else part for part in (one, other)]
    named = [letter for part in (one, other) if part not in ("*", "?") for letter in part.strip("[]!")]
    letters: list[str] = [*named, *_ANY, *"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-."]
    for letter in letters:
        if all(letter == p if len(p) == 1 and p != "?" else fnmatchcase(letter, p) for p in patterns):
            return letter
    return ""


def _tokens(pattern: str) -> list[str]:
    return ["*" if token.startswith("*") else token for token in _TOKEN.findall(pattern)]


def covers(one: str, other: str) -> bool:
    """Whether all names that the other pattern matches are matched by the first; of `?` and `[...]` it is not sure."""
    tries = (other.replace("*", rare) for rare in _RARE) if "*" in other else (other,)
    return one in ("*", other) or ("?" not in other and "[" not in other and all(fnmatchcase(t, one) for t in tries))


def task_of_both(one: Match, other: Match) -> tuple[str, str] | None:
    """Return DAG id and task id that two patterns both match, None if there are none."""
    dag_id, task_id = both_match(one.dag_id, other.dag_id), both_match(one.task_id, other.task_id)
    if dag_id is None or task_id is None:
        return None
    return dag_id or "any", task_id or "any"


def one_covers(one: Match, other: Match) -> bool:
    """Whether one of two patterns matches all tasks that the other does."""
    pairs = ((one, other), (other, one))
    return any(covers(a.dag_id, b.dag_id) and covers(a.task_id, b.task_id) for a, b in pairs)


def matches(match: Match, dag_id: str, task_id: str) -> bool:
    """Whether a task is meant."""
    return fnmatchcase(dag_id, match.dag_id) and fnmatchcase(task_id, match.task_id)


def is_exact(match: Match) -> bool:
    """Whether one task is meant, by its ids."""
    return not any(letter in match.dag_id + match.task_id for letter in "*?[")
