"""
What differs between what is rendered and what Datadog has.

Only what is rendered is looked at: Datadog adds fields of its own at every level. And some of what it tells is written
in another way and means the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Datadog makes the one of the other by the form of the query, as its Terraform provider knows too
# (resource_datadog_monitor.go, `type`).
_SAME_TYPES = {"metric alert", "query alert"}
# Lists without an order, and by what their elements are told apart.
_TAGS, _BY_TIMEFRAME = "tags", "thresholds"
# Fields that Datadog may leave out while they have this value.
_DEFAULTS = {"on_missing_data": "default", "include_tags": True}
_NOTHING: tuple[Any, ...] = (None, "", [], {}, False)


class _Missing:
    def __repr__(self) -> str:
        return "(nothing)"


MISSING = _Missing()


@dataclass(frozen=True)
class Difference:
    """One field that differs: where, what Datadog has (`MISSING` for nothing) and what is rendered."""

    path: str
    before: Any
    after: Any


def differences(wanted: Any, found: Any, path: str = "") -> list[Difference]:
    """Return what of `wanted` is otherwise in `found`."""
    return list(_differences(wanted, found, path))


def _differences(wanted: Any, found: Any, path: str) -> Iterator[Difference]:
    name = path.rpartition(".")[2]
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            yield from _differences(value, found.get(key, MISSING), f"{path}.{key}" if path else key)
    elif isinstance(wanted, list) and isinstance(found, list):
        wanted, found = (_ordered(name, one) for one in (wanted, found))
        if len(wanted) != len(found) or name == _TAGS:
            if wanted != found:
                yield Difference(path, found, wanted)
            return
        for place, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from _differences(one, other, f"{path}[{place}]")
    elif not _same(name, wanted, found):
        yield Difference(path, found, wanted)


def _ordered(name: str, several: list[Any]) -> list[Any]:
    if name == _TAGS:
        return sorted({str(one).lower() for one in several})
    if name == _BY_TIMEFRAME and all(isinstance(one, dict) for one in several):
        return sorted(several, key=lambda one: str(one.get("timeframe")))
    return several


def _same(name: str, wanted: Any, found: Any) -> bool:
    if found is MISSING or found is None:
        # Not `in`, for which 0 is False.
        is_nothing = any(wanted is one or (wanted == one and type(wanted) is type(one)) for one in _NOTHING)
        return is_nothing or (name in _DEFAULTS and wanted == _DEFAULTS[name])
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return math.isclose(wanted, found, rel_tol=1e-9)
    if isinstance(wanted, str) and isinstance(found, str):
        return _plain(wanted) == _plain(found) or (name == "type" and {wanted, found} == _SAME_TYPES)
    return bool(wanted == found)


def _plain(text: str) -> str:
    """Return a text without the blank ends and the ends of lines that Datadog does not keep."""
    return text.replace("\r\n", "\n").strip()
