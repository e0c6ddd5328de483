"""
Secrets masked in what is about to leave: passwords in URLs, values behind keys that look like secrets, and what
environment variables with such names hold.

Airflow's own masker knows its connections and variables only, and a cron job has none; this needs nothing set up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from batch_observability.redact.environment import forget_environment
from batch_observability.redact.keys import looks_secret, names_secret
from batch_observability.redact.texts import MASK, PrivateKeyLines, hinted, redact_text

__all__ = ["MASK", "PrivateKeyLines", "forget_environment", "hinted", "looks_secret", "redact", "redact_text"]

# More than a log line has.
_MAX_DEPTH = 24
# `["run", "--password", "x"]`
_OPTION = re.compile(r"--?([A-Za-z][\w.-]*)")


def redact(value: Any) -> Any:
    """
    Return a value with its secrets masked, made of new dicts, lists and tuples.

    What is under a key that looks like a secret is masked whole, and so is what is nested too deeply or holds itself.
    A namedtuple becomes a dict. Numbers, booleans and None stay; anything else becomes its redacted text. Never raises.
    """
    return _redacted(value, _MAX_DEPTH, {})


def _redacted(value: Any, depth: int, seen: dict[int, tuple[Any, Any]]) -> Any:
    if value is None or type(value) in {bool, int, float}:
        return value
    try:
        if isinstance(value, dict | list | tuple):
            # What is there many times is looked at once; while it is, it is the mask. It is kept, and its id with it.
            if id(value) not in seen:
                seen[id(value)] = (value, MASK)
                seen[id(value)] = (value, _container_redacted(value, depth, seen) if depth else MASK)
            return seen[id(value)][1]
        return redact_text(str(value))
    except Exception:
        return f"<{type(value).__name__}>"


def _container_redacted(
    value: dict[Any, Any] | list[Any] | tuple[Any, ...], depth: int, seen: dict[int, tuple[Any, Any]]
) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        value = dict(zip(value._fields, value, strict=True))
    if isinstance(value, dict):
        pairs = list(value.items())
        # As Kubernetes has it: name: DB_PASSWORD, value: x
        named = any(_name(key).lower() in {"name", "key"} and _is_secret_key(inner) for key, inner in pairs)
        return {
            _redacted_key(key): MASK
            if _is_masked(key, inner) or (named and _name(key).lower() == "value" and isinstance(inner, str))
            else _redacted(inner, depth - 1, seen)
            for key, inner in pairs
        }
    items = [_redacted(inner, depth - 1, seen) for inner in list(value)]
    if len(value) == 2 and _is_masked(*value):
        # One of the pairs that a dict may be written as.
        items[1] = MASK
    for place in _secret_places(value):
        items[place] = MASK
    return items if isinstance(value, list) else tuple(items)


def _secret_places(values: list[Any] | tuple[Any, ...]) -> Iterator[int]:
    """Yield which values are secrets by what stands before them: an option of a command, the first line of a key."""
    of_key, after_option = PrivateKeyLines(), False
    for place, value in enumerate(values):
        if not isinstance(value, str):
            after_option = False
            continue
        if of_key.holds(value) or (after_option and not value.startswith("-")):
            yield place
        option = _OPTION.fullmatch(value, 0, 200)
        after_option = option is not None and looks_secret(option[1])


def _redacted_key(key: Any) -> Any:
    return key if key is None or type(key) in {bool, int, float} else _redacted(str(key), 0, {})


def _is_masked(key: Any, value: Any) -> bool:
    """
    Whether a value is masked for its key.

    `True` and None are no secrets, `secrets: 3` is their number, and `token: 0.3` says something of a feature.
    """
    if value is None or value is True or value is False or type(value) is float:
        return False
    if not _is_secret_key(key):
        return False
    return type(value) is not int or not _name(key).lower().endswith("s")


def _is_secret_key(key: Any) -> bool:
    name = _name(key)
    return bool(name) and names_secret(name)


def _name(key: Any) -> str:
    """Return a key as text, "" if it is none; those of headers may be bytes."""
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    return key if isinstance(key, str) else ""
