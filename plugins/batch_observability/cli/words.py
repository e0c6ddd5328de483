"""
What the command says, in words that fit on a line: nothing in them breaks it or commands a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from batch_observability.objective import format_duration


def rough(age_ns: int) -> str:
    """Return a duration in words, to the precision that matters."""
    seconds = max(age_ns, 0) // 10**9
    step = 3600 if seconds >= 86_400 else 60 if seconds >= 60 else 1
    return format_duration(timedelta(seconds=seconds // step * step))


def one_line(text: str) -> str:
    """Return text that neither breaks a line nor commands a terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Return rows as lines whose columns stand below each other; each is one line, whatever is in it."""
    clean = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in clean]


def document(values: Mapping[str, Any]) -> str:
    """Return a JSON object; its lists have a line for each element, which is quick to write and to find things in."""
    parts = []
    for name, value in values.items():
        several = isinstance(value, list) and value
        text = "[\n" + ",\n".join(f"  {json.dumps(one)}" for one in value) + "\n]" if several else json.dumps(value)
        parts.append(f"{json.dumps(name)}: {text}")
    return "{" + ",\n".join(parts) + "}"


def finite(value: float | None) -> float | None:
    """Return a number that JSON has."""
    return value if value is not None and abs(value) != float("inf") else None
