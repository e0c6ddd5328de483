"""
Any object as what JSON can hold: whatever it is, however deep, and if it fails to say what it is.

A log line is made of what user code has at hand. None of that may fail the line, or make it endless.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

# These stay as they are.
SCALARS = frozenset({str, int, float, bool, type(None)})
# A record is cut to a smaller size later, once secrets are masked: half of one might not be known.
MAX_TEXT = 1_000_000
# Stays in any case: a time, an id.
_SHORT = 100
_MAX_DEPTH = 20
_MAX_KEY = 200
# Values of one field; shared ones count each time, as JSON writes them each time.
_MAX_VALUES = 20_000
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
# More than that no receiver takes.
INT64 = range(-(2**63), 2**64)
_CUT = re.compile(r"… \[cut: [\d,]+ characters\]\Z")
_TOO_DEEP, _ITSELF = "… [cut: nested too deep]", "… [cut: holds itself]"


def text(value: object) -> str:
    """Return an object as text. Never raises, whatever the object does."""
    try:
        # More than 4,300 digits Python does not write.
        made = hex(value) if type(value) is int and value not in INT64 else str(bounded(value))
        # Of a subclass of str the text, without what it does.
        return cut(made if type(made) is str else str.__str__(made), MAX_TEXT)
    except Exception:
        return _unprintable(value)


def _unprintable(value: object) -> str:
    # A metaclass may have its own idea of a name.
    return f"<{type.__dict__['__name__'].__get__(type(value))}: it cannot be printed>"


def bounded(value: Any) -> Any:
    """Return a container as it is, or plain and cut if its text would be too long: what is shared counts each time."""
    if type(value) not in _CONTAINERS:
        return value
    left, waiting = _MAX_VALUES, [value]
    while waiting:
        one = waiting.pop()
        inner = [*one, *one.values()] if type(one) is dict else one
        left -= len(inner)
        if left < 0:
            return plain(value)
        waiting += [it for it in inner if type(it) in _CONTAINERS]
    return value


def cut(whole: str, size: int) -> str:
    """Return a text, or its beginning with a mark that says how long it was."""
    if len(whole) <= size:
        return whole
    known = _CUT.search(whole, max(0, len(whole) - 40))
    mark = known[0] if known else f"… [cut: {len(whole):,} characters]"
    return whole[: max(0, size - len(mark))] + mark


def plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a record, each of them plain. Never raises."""
    made = plain(fields)
    return made if isinstance(made, dict) else {"…": made}


def plain(value: object) -> Any:
    """Return a value made of dicts with text as keys, lists, texts, finite numbers, booleans and None. Never raises."""
    return _Walk().plain(value, _MAX_DEPTH)


class _Walk:
    """Through one value: what it is inside of, and how many values and characters it may still find."""

    def __init__(self) -> None:
        self._within: set[int] = set()
        self._left = _MAX_VALUES
        self._characters = MAX_TEXT

    def plain(self, value: Any, depth: int) -> Any:
        self._left -= 1
        kind = type(value)
        if kind is str:
            return self._of_text(value)
        if value is None or kind is bool:
            return value
        try:
            return self._of_number(value) if kind in {int, float} else self._of_object(value, depth)
        except Exception:
            return _unprintable(value)

    def _of_text(self, value: str) -> str:
        if len(value) <= max(self._characters, _SHORT):
            self._characters -= min(len(value), self._characters)
            return value
        # What is left of a long one is cut again. The end of a short one might be a part of a secret, and be shown.
        left, self._characters = self._characters, 0
        return cut(value, left if left >= MAX_TEXT // 2 else 0)

    @staticmethod
    def _of_number(value: float) -> int | float | str:
        if isinstance(value, int):
            return value if value in INT64 else hex(value)
        return value if math.isfinite(value) else str(value)

    def _of_object(self, value: Any, depth: int) -> Any:
        if isinstance(value, str | bool):
            return self._of_text(str.__str__(value)) if isinstance(value, str) else bool(value)
        if isinstance(value, int):
            return self._of_number(int.__add__(value, 0))
        if isinstance(value, float):
            return self._of_number(float.__add__(value, 0.0))
        if isinstance(value, bytes | bytearray):
            return self._of_text(bytes(value[:MAX_TEXT]).decode("utf-8", "backslashreplace"))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            # A namedtuple: its names say what is a secret.
            value = dict(zip(value._fields, value, strict=True))
        if isinstance(value, Mapping | list | tuple | set | frozenset | deque):
            return self._of_container(value, depth)
        if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and depth:
            return self.plain(value.item(), depth - 1)
        return self._of_text(text(value))

    def _of_container(self, value: Any, depth: int) -> Any:
        if id(value) in self._within:
            return _ITSELF
        if not depth:
            return _TOO_DEEP
        self._within.add(id(value))
        try:
            return self._of_mapping(value, depth) if isinstance(value, Mapping) else self._of_list(value, depth)
        finally:
            self._within.discard(id(value))

    def _of_mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        # Another thread may add to it meanwhile.
        pairs = list(value.items())
        for count, (key, inner) in enumerate(pairs):
            if self._left <= 0:
                made["…"] = _more(len(pairs) - count)
                break
            name = cut(key if type(key) is str else _key(key), _MAX_KEY)
            if name in made:
                # 1 and "1" are two keys.
                name = f"{name} ({type(key).__name__}, {count})"
            made[name] = self.plain(inner, depth - 1)
        return made

    def _of_list(self, value: Any, depth: int) -> list[Any]:
        made: list[Any] = []
        items = list(value)
        for count, inner in enumerate(items):
            if self._left <= 0:
                made.append(_more(len(items) - count))
                break
            made.append(self.plain(inner, depth - 1))
        return made


def _key(key: object) -> str:
    # Headers may have bytes.
    return key[:MAX_TEXT].decode("utf-8", "backslashreplace") if isinstance(key, bytes) else text(key)


# --- Cut to size --------------------------------------------------------------------------------------------------


def shortened(value: Any, longest: int, most: int) -> Any:
    """Return a plain value with texts of at most `longest` characters, and `most` values in each list and dict."""
    if isinstance(value, str):
        return cut(value, longest)
    if isinstance(value, list):
        made = [shortened(inner, longest, most) for inner in value[:most]]
        return made if len(value) <= most else [*made, _more(len(value) - most)]
    if isinstance(value, dict):
        pairs = list(value.items())
        short = {key: shortened(inner, longest, most) for key, inner in pairs[:most]}
        return short if len(pairs) <= most else {**short, "…": _more(len(pairs) - most)}
    return value


def _more(count: int) -> str:
    return f"… [cut: {count:,} more]"
