"""
Records as values that JSON has, and back.

What is told to the ledger may wait in a file, and be read by another version of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Self

Model = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Record:
    """Fields that are plain values, lists of records or records."""

    _kinds: ClassVar[dict[str, type[Record]]] = {}

    def __init_subclass__(cls) -> None:
        # A field says in its annotation which record it is, or which records.
        cls._kinds |= {cls.__name__: cls, f"tuple[{cls.__name__}, ...]": cls}

    def to_json(self) -> dict[str, Any]:
        """Return the fields as values that JSON has."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_json(cls, values: object) -> Self:
        """
        Read what `to_json` wrote; fields that this version does not know are passed over.

        Raises:
            ValueError: naming the field, in one line.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{cls.__name__} is {type(values).__name__}: not an object")  # noqa: TRY004  (one class of error to the reader)
        known = {}
        for f in fields(cls):
            if f.name in values:
                known[f.name] = cls._read(f"{cls.__name__}.{f.name}", str(f.type), values[f.name])
            elif f.default is MISSING:
                raise ValueError(f"{cls.__name__} has no {f.name}")
        return cls(**known)

    @classmethod
    def _read(cls, place: str, kind: str, value: Any) -> Any:
        if kind.endswith(" | None"):
            return None if value is None else cls._read(place, kind.removesuffix(" | None"), value)
        if kind.startswith("tuple["):
            if not isinstance(value, list | tuple):
                raise ValueError(f"{place} is {short(value)}: not a list")
            return tuple(cls._kinds[kind].from_json(item) for item in value)
        if kind in cls._kinds:
            return cls._kinds[kind].from_json(value)
        fits, name = _PLAIN[kind]
        if not fits(value):
            raise ValueError(f"{place} is {short(value)}: not {name}")
        return float(value) if kind == "float" else value


def short(value: object) -> str:
    """Return a value as Python writes it, cut to fit in a message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _is_number(value: object) -> bool:
    # Above 2**1023 a whole number is too large for a float.
    return isinstance(value, float) or (isinstance(value, int) and _is_whole(value) and abs(value) < 2**1023)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# By the text of a field's annotation.
_PLAIN: dict[str, tuple[Callable[[object], bool], str]] = {
    "str": (lambda value: isinstance(value, str), "a text"),
    "int": (_is_whole, "a whole number"),
    "float": (_is_number, "a number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "Model": (lambda value: isinstance(value, dict), "an object"),
    "dict[str, Any]": (lambda value: isinstance(value, dict), "an object"),
}
